"""A small network in NumPy: layers in a row, one of them bridged, and their gradients."""

from __future__ import annotations

import numpy as np

from automl_tl.types import Cut, Layer, NetworkInfo

PATCH, WIDTH, FEATURES = 4, 16, 24
BRIDGE = 4
"""The addition adds the tensor at this cut, so that there are no cuts between the two."""
KINDS = {
    "patches": "Patches",
    "embed": "Dense",
    "norm": "BatchNorm",
    "relu": "ReLU",
    "expand": "Dense",
    "relu_2": "ReLU",
    "project": "Dense",
    "add": "Add",
    "last": "Dense",
}
NAMES = tuple(KINDS)
SHAPES = {
    "embed": (3 * PATCH**2, WIDTH),
    "expand": (WIDTH, WIDTH),
    "project": (WIDTH, WIDTH),
    "last": (WIDTH, FEATURES),
}
STATISTICS = ("mean", "variance")
PARAMETERS = 1768


def draw():
    """Random tensors by name, from NumPy's global generator, which the backend seeds."""
    tensors = {}
    for name, shape in SHAPES.items():
        scale = np.sqrt(2 / shape[0])
        tensors[f"{name}.kernel"] = np.random.normal(0, scale, shape).astype(np.float32)
        tensors[f"{name}.bias"] = np.random.normal(0, 0.1, shape[1]).astype(np.float32)
    for part, low in (("scale", 0.5), ("shift", -0.5), ("mean", -0.5), ("variance", 0.5)):
        tensors[f"norm.{part}"] = np.random.uniform(low, low + 1, WIDTH).astype(np.float32)
    return tensors


def describe(size):
    side = size // PATCH
    shapes = [(size, size, 3), (side, side, 3 * PATCH**2)]
    shapes += [(side, side, WIDTH)] * 7 + [(side, side, FEATURES)]
    flops = np.cumsum([0, *(side**2 * int(np.prod(SHAPES.get(n, (WIDTH,)))) for n in NAMES)])
    cuts = [i for i in range(len(NAMES) + 1) if not BRIDGE < i <= NAMES.index("add")]
    counts = {name: int(np.prod(shape)) + shape[1] for name, shape in SHAPES.items()}
    counts["norm"] = 2 * WIDTH
    return NetworkInfo(
        tuple(Layer(name, kind, counts.get(name, 0)) for name, kind in KINDS.items()),
        tuple(Cut(i, shapes[i], int(flops[i])) for i in cuts),
        FEATURES,
        "numpynet 1",
    )


def normalized(pixels, preprocess):
    """Pixels as ``Preprocess`` says."""
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    ordered = pixels[..., ::-1] if preprocess.channels == "bgr" else pixels
    return (ordered.astype(np.float32) / 255 - mean) / std


def forward(tensors, x, start, stop):
    """Run the layers between two cuts; returns the tensor at every index by the way."""
    values = {start: x}
    for index in range(start, stop):
        values[index + 1] = _layer(tensors, NAMES[index], values[index], values)
    return values


def _layer(tensors, name, x, values):
    kind = KINDS[name]
    if kind == "Patches":
        n, size = x.shape[:2]
        side = size // PATCH
        parts = x[:, : side * PATCH, : side * PATCH].reshape(n, side, PATCH, side, PATCH, 3)
        return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, side, side, -1)
    if kind == "Dense":
        return x @ tensors[f"{name}.kernel"] + tensors[f"{name}.bias"]
    if kind == "BatchNorm":
        return _normalised(tensors, x) * tensors["norm.scale"] + tensors["norm.shift"]
    return np.maximum(x, 0) if kind == "ReLU" else x + values.get(BRIDGE, 0)


def _normalised(tensors, x):
    return (x - tensors["norm.mean"]) / np.sqrt(tensors["norm.variance"] + np.float32(1e-3))


def backward(tensors, values, slope, down_to):
    """Gradients of the parameters of ``layers[down_to:]``, from the slope of their output."""
    gradients, bridged = {}, 0
    for index in range(len(NAMES) - 1, down_to - 1, -1):
        name, x = NAMES[index], values[index]
        kind = KINDS[name]
        if index + 1 == BRIDGE:
            slope = slope + bridged
        if kind == "Dense":
            flat, flat_slope = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
            gradients[f"{name}.kernel"] = flat.T @ flat_slope
            gradients[f"{name}.bias"] = flat_slope.sum(axis=0)
            slope = slope @ tensors[f"{name}.kernel"].T
        elif kind == "BatchNorm":
            gradients["norm.scale"] = (slope * _normalised(tensors, x)).sum(axis=(0, 1, 2))
            gradients["norm.shift"] = slope.sum(axis=(0, 1, 2))
            width = np.sqrt(tensors["norm.variance"] + np.float32(1e-3))
            slope = slope * tensors["norm.scale"] / width
        elif kind == "ReLU":
            slope = slope * (values[index + 1] > 0)
        elif kind == "Add":
            bridged = slope
    return gradients


def trainable(at):
    """Names of the parameters of ``layers[at:]``."""
    found = [f"{n}.{p}" for n in NAMES[at:] if n in SHAPES for p in ("kernel", "bias")]
    return found + (["norm.scale", "norm.shift"] if at <= NAMES.index("norm") else [])
