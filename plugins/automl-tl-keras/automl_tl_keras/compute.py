"""Running a frozen part of a network over an array on disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from automl_tl.augment import ViewParameters, draw
from automl_tl.errors import PluginError, TrialError
from automl_tl.pages import Pages
from automl_tl.training.rows import Rows
from automl_tl_keras import augment
from automl_tl_keras.runtime import exact_float32, free_memory, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.types import Source
    from automl_tl_keras.network import Network

# Values alive at once, in the largest tensor at a cut: 3.0 to 3.3 measured on MobileNetV2, VGG16,
# ResNet50, DenseNet121 and EfficientNetB0, where a compiled function frees each as soon as it can.
_ALIVE = 4
# On a CPU batches of 8 and of 32 took as long per image.
_LARGEST_BATCH = {"cpu": 32, "mps": 128, "cuda": 512}


def run(
    network: Network,
    source: Source,
    cut: int,
    pooling: Literal["avg", "max"] | None,
    out: Path,
    progress: Progress,
    device: str = "cpu",
) -> None:
    """Fill ``out`` with the tensors at ``cut``; see ``automl_tl.protocols.Backend.run``.

    Computes in full float32 on every device. When a batch does not fit on the device, it is
    halved.

    Raises:
        PluginError: When the arguments do not go together.
        TrialError: When not even one image fits on the device.
    """
    if source.pooling or cut < source.cut or (pooling and cut != len(network.info.layers)):
        raise PluginError(
            f"{network.backbone.key}: expected to compute from a stored tensor upwards, and to "
            f"pool at the last cut only, got cut {source.cut} to {cut} with pooling {pooling}."
        )
    target = np.load(out, mmap_mode="r+")
    segment = network.segment(source.cut, cut)
    size = batch_size(network, source.cut, cut, device)
    fill(network, segment, source, pooling, target, size, progress, device)
    target.flush()


def fill(
    network: Network,
    part: keras.Model,
    source: Source,
    pooling: Literal["avg", "max"] | None,
    target: NDArray[np.float32],
    size: int,
    progress: Progress,
    device: str,
) -> None:
    """Run a part of a network over a source, batch by batch, in full float32.

    Args:
        network: What the part belongs to.
        part: Returned by the network's ``segment`` or ``tap``, from the source's cut.
        source: What to read.
        pooling: Of the part's output, if it is a map.
        target: Receives one row an image.
        size: Images a batch; halved when they do not fit on the device.
        progress: Told how many images are done.
        device: Where it computes.

    Raises:
        TrialError: When not even one image fits on the device.
    """
    stored, pages = Rows(source), Pages(target)
    drawn = draw(source.view, len(stored)) if source.view else None
    forward = _compiled(network, part, pooling, drawn is not None)
    done = 0
    progress.step(f"prefix {network.backbone.key}", done, len(stored))
    with exact_float32(device):
        while done < len(stored):
            batch = slice(done, min(done + size, len(stored)))
            views = () if drawn is None else (drawn.affine[batch], drawn.colour[batch])
            try:
                target[batch] = forward(_exact(stored.chunk(batch.start, batch.stop)), *views)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise TrialError(
                        f"{network.backbone.key}: not even one image of "
                        f"{network.spec.image_size} pixels a side fits on {device}; "
                        "choose a smaller image size or another device."
                    ) from error
                size //= 2
                continue
            pages.touch(target[batch])
            done = batch.stop
            progress.step(f"prefix {network.backbone.key}", done, len(stored))


def _exact(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as it is computed with: activations in float32, pixels as they are."""
    return array.astype(np.float32) if array.dtype == np.float16 else np.asarray(array)


def pool(features: Any, pooling: Literal["avg", "max"] | None) -> Any:
    """Pool a map ``(n, h, w, c)`` to ``(n, c)``; a vector stays as it is."""
    if pooling is None or len(features.shape) != 4:
        return features
    reduce = keras.ops.mean if pooling == "avg" else keras.ops.max
    return reduce(features, axis=(1, 2))


def batch_size(network: Network, start: int, stop: int, device: str) -> int:
    """Return how many images to compute at once between two cuts."""
    shapes = [cut.shape for cut in network.info.cuts if start <= cut.index <= stop]
    image_bytes = 4 * _ALIVE * max(math.prod(shape) for shape in shapes)
    largest = _LARGEST_BATCH[device.partition(":")[0]]
    return max(1, min(largest, free_memory(device) // image_bytes))


def _compiled(
    network: Network, part: keras.Model, pooling: Literal["avg", "max"] | None, augmented: bool
) -> Callable[..., NDArray[np.float32]]:
    """Return a function of a batch and of a view's parameters, compiled once for a network."""
    key = (id(part), pooling, augmented)
    if key not in network.compiled:

        def forward(x: Any, affine: Any = None, colour: Any = None) -> Any:
            if augmented:
                x = augment.apply(x, ViewParameters(affine, colour))
            return pool(keras.ops.cast(part(x, training=False), "float32"), pooling)

        make = {"tensorflow": _on_tensorflow, "torch": _on_torch, "jax": _on_jax}
        network.compiled[key] = make[keras.config.backend()](forward, part)
    return network.compiled[key]


def _on_tensorflow(forward: Callable[..., Any], part: keras.Model) -> Callable[..., Any]:
    import tensorflow as tf

    function = tf.function(forward, autograph=False)
    traced: dict[Any, Callable[..., Any]] = {}

    def call(*arrays: NDArray[Any]) -> Any:
        kind = arrays[0].dtype
        if kind not in traced:
            specs = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays]
            traced[kind] = function.get_concrete_function(*specs)
        return traced[kind](*map(tf.constant, arrays)).numpy()

    return call


def _on_torch(forward: Callable[..., Any], part: keras.Model) -> Callable[..., Any]:
    import torch

    def call(x: NDArray[Any], *views: NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            return keras.ops.convert_to_numpy(forward(keras.ops.convert_to_tensor(x), *views))

    return call


def _on_jax(forward: Callable[..., Any], part: keras.Model) -> Callable[..., Any]:
    import jax

    variables = part.variables

    def stateless(values: list[Any], *arrays: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return forward(*arrays)

    function = jax.jit(stateless)

    def call(*arrays: NDArray[Any]) -> Any:
        # Each shape is compiled for itself, so that few must do.
        count = len(arrays[0])
        rows = np.minimum(np.arange(1 << (count - 1).bit_length()), count - 1)
        values = [variable.value for variable in variables]
        return np.asarray(function(values, *(array[rows] for array in arrays)))[:count]

    return call
