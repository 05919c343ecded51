"""Write ``automl_tl_keras/catalog.json``: the facts of the models of ``keras.applications``.

Run it after a Keras release, then read the diff:

    KERAS_BACKEND=tensorflow python plugins/automl-tl-keras/tools/make_catalog.py

Names of weights files, their addresses and hashes are what Keras' own code asks for; the kind of
preprocessing and the accepted sizes are tried out. Accuracies are those of
https://keras.io/api/applications and, for MobileNetV3, of its docstring; other widths have none.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import keras
import numpy as np
from keras import applications

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOG = Path(__file__).resolve().parents[1] / "automl_tl_keras" / "catalog.json"
SMALLEST = 32
BIGGER = 32
CAFFE = (103.939, 116.779, 123.68)
# Name, input size and `alpha` of the widths that are published beside 1.0.
WIDTHS = (
    ("MobileNet", 128, 0.25),
    ("MobileNet", 160, 0.5),
    ("MobileNet", 192, 0.75),
    ("MobileNetV2", 128, 0.35),
    ("MobileNetV2", 160, 0.5),
    ("MobileNetV2", 192, 0.75),
    ("MobileNetV3Large", 224, 0.75),
    ("MobileNetV3Small", 224, 0.75),
)
ACCURACY = {
    "ConvNeXtBase": 85.3,
    "ConvNeXtLarge": 86.3,
    "ConvNeXtSmall": 82.3,
    "ConvNeXtTiny": 81.3,
    "ConvNeXtXLarge": 86.7,
    "DenseNet121": 75.0,
    "DenseNet169": 76.2,
    "DenseNet201": 77.3,
    "EfficientNetB0": 77.1,
    "EfficientNetB1": 79.1,
    "EfficientNetB2": 80.1,
    "EfficientNetB3": 81.6,
    "EfficientNetB4": 82.9,
    "EfficientNetB5": 83.6,
    "EfficientNetB6": 84.0,
    "EfficientNetB7": 84.3,
    "EfficientNetV2B0": 78.7,
    "EfficientNetV2B1": 79.8,
    "EfficientNetV2B2": 80.5,
    "EfficientNetV2B3": 82.0,
    "EfficientNetV2L": 85.7,
    "EfficientNetV2M": 85.3,
    "EfficientNetV2S": 83.9,
    "InceptionResNetV2": 80.3,
    "InceptionV3": 77.9,
    "MobileNet": 70.4,
    "MobileNetV2": 71.3,
    "MobileNetV3Large": 75.6,
    "MobileNetV3Large-0.75": 73.3,
    "MobileNetV3Small": 68.1,
    "MobileNetV3Small-0.75": 65.4,
    "NASNetLarge": 82.5,
    "NASNetMobile": 74.4,
    "ResNet101": 76.4,
    "ResNet101V2": 77.2,
    "ResNet152": 76.6,
    "ResNet152V2": 78.0,
    "ResNet50": 74.9,
    "ResNet50V2": 76.0,
    "VGG16": 71.3,
    "VGG19": 71.3,
    "Xception": 79.0,
}


def main() -> None:
    """Write the catalog."""
    # Drawing random weights would take most of the time.
    draw = mock.patch("keras.src.initializers.random_initializers.random", zeros())
    plain = [name for name, _ in inspect.getmembers(applications, inspect.isfunction)]
    models: list[tuple[str, int | None, dict[str, float]]] = [
        *((name, None, {}) for name in plain),
        *((name, size, {"alpha": alpha}) for name, size, alpha in WIDTHS),
    ]
    with draw:
        rows = sorted((row(*model) for model in models), key=lambda facts: str(facts["name"]))
    lines = ",\n".join(json.dumps(facts) for facts in rows)
    CATALOG.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(rows)} models written to {CATALOG}")


def row(model: str, size: int | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of one model."""
    name = f"{model}-{options['alpha']}" if options else model
    if model.startswith("MobileNetV3"):
        size = 224  # the only one published; Keras leaves it open
    whole, top = published(model, include_top=True, input_shape=size and (size, size, 3), **options)
    size = whole.input_shape[1]
    flops, parameters = multiply_adds(whole), count(whole)
    body, notop = published(model, include_top=False, input_shape=(size, size, 3), **options)
    smallest = smallest_side(model, size, options)
    print(f"{name}: {size} px, from {smallest} px, {len(body.layers)} layers", file=sys.stderr)
    keras.backend.clear_session()
    return {
        "name": name,
        "model": model,
        "options": options,
        "input_size": size,
        "min_size": smallest,
        "preprocess": preprocessing(model),
        "parameters": parameters,
        "gflops": round(flops / 1e9, 3),
        "imagenet_accuracy": round(ACCURACY[name] / 100, 3) if name in ACCURACY else None,
        "features": notop,
        "classifier": top,
    }


@contextlib.contextmanager
def no_weights(asked: list[dict[str, Any]]) -> Iterator[None]:
    """Let Keras build with ``weights="imagenet"``, noting the file instead of fetching it."""

    def get_file(file: str, url: str, file_hash: str | None = None, **_: Any) -> str:
        asked.append({"file": file, "url": url, "hash": file_hash})
        return file

    with (
        mock.patch("keras.src.utils.file_utils.get_file", get_file),
        mock.patch("keras.Model.load_weights"),
    ):
        yield


def zeros() -> mock.Mock:
    """Return what stands for ``keras.random`` and draws nothing but zeros."""

    def draw(shape: tuple[int, ...], *_: Any, dtype: str | None = None, **__: Any) -> Any:
        return keras.ops.zeros(shape, dtype)

    return mock.Mock(uniform=draw, normal=draw, truncated_normal=draw)


def published(model: str, **options: Any) -> tuple[keras.Model, dict[str, Any]]:
    """Build a model as Keras does for its published weights; return it and their file."""
    asked: list[dict[str, Any]] = []
    with no_weights(asked):
        built = getattr(applications, model)(weights="imagenet", **options)
    (file,) = asked
    return built, file


def preprocessing(model: str) -> str:
    """Say which of the four kinds ``preprocess_input`` of a model is, by trying it."""
    module = sys.modules[getattr(applications, model).__module__]
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    seen = module.preprocess_input(pixels.copy())
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    kinds = {
        "none": pixels,
        "tf": pixels / 127.5 - 1,
        "torch": (pixels / 255 - mean) / std,
        "caffe": pixels[..., ::-1] - np.array(CAFFE),
    }
    (kind,) = (name for name, values in kinds.items() if np.allclose(seen, values, atol=1e-4))
    return kind


def smallest_side(model: str, size: int, options: dict[str, Any]) -> int:
    """Return the smallest accepted side from 32 up; some other sides must be accepted too."""
    smallest = next(side for side in range(SMALLEST, size + 1) if builds(model, side, options))
    others = (smallest + 1, size + BIGGER + 1)
    refused = [side for side in others if not builds(model, side, options)]
    if refused:
        raise SystemExit(f"{model} refuses sides {refused}: the catalog has no word for that")
    return smallest


def builds(model: str, side: int, options: dict[str, Any]) -> bool:
    """Say whether a model can be built for square images of this side, with some output left."""
    try:
        built = getattr(applications, model)(
            weights=None, include_top=False, input_shape=(side, side, 3), **options
        )
    except ValueError:
        return False
    return min(built.output_shape[1:]) > 0


def multiply_adds(model: keras.Model) -> int:
    """Count the multiply-adds of kernels for one image."""
    total = 0
    for layer in model._flatten_layers(include_self=False):
        kernels = [v for v in layer._trainable_variables if "kernel" in v.name]
        if kernels:
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def count(model: keras.Model) -> int:
    """Count the trainable parameters: without moving statistics, as in PyTorch."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


if __name__ == "__main__":
    main()
