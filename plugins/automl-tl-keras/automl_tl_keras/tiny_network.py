"""The network behind ``keras/tiny``; ``automl_tl.tiny`` says what it is made of.

Layers have the names that they have in ``torch/tiny``, with ``_`` for dots, which Keras on PyTorch
refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from automl_tl.tiny import CLASSES, EPSILON, STAGES, STEM

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

# Keras' name of a variable and PyTorch's.
_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
}


def features(image_size: int | None = None) -> keras.Model:
    """Build the network without its classifier.

    Args:
        image_size: Side of the images, None for any.

    Returns:
        From normalised images ``(N, S, S, 3)`` with ``S >= 8`` to ``(N, S // 8, S // 8, 112)``.
    """
    images = keras.Input((image_size, image_size, 3))
    return keras.Model(images, _features(images), name="tiny")


def classifier(image_size: int | None = None) -> keras.Model:
    """Build the whole network, which gives logits ``(N, classes)``; like ``features``."""
    images = keras.Input((image_size, image_size, 3))
    pooled = layers.GlobalAveragePooling2D(name="pool")(_features(images))
    logits = layers.Dense(CLASSES, name="classifier")(pooled)
    return keras.Model(images, logits, name="tiny")


def fill(network: keras.Model, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
    """Give a network the weights of ``torch/tiny``.

    Args:
        network: Made by ``features`` or ``classifier``; changed only when all tensors fit.
        tensors: By PyTorch's names, in PyTorch's layouts.

    Raises:
        KeyError: When a tensor is missing.
        ValueError: When one has another shape.
    """
    values = []
    for layer in network.layers:
        for variable in layer.weights:
            name = f"{layer.name.replace('_', '.')}.{_NAMES[variable.name]}"
            value = _channels_last(tensors[name])
            if value.shape != tuple(variable.shape):
                raise ValueError(f"{name} has shape {tensors[name].shape}")
            values.append((variable, value))
    for variable, value in values:
        variable.assign(value.astype("float32"))


def _features(x: Any) -> Any:
    x = _convolution(x, STEM, "features_stem", 0)
    x = layers.ReLU(name="features_stem_2")(x)
    for number, width in enumerate(STAGES, start=1):
        stage = f"features_stage{number}"
        x = layers.MaxPooling2D(2, name=f"{stage}_0")(x)
        x = _convolution(x, width, stage, 1)
        x = layers.ReLU(name=f"{stage}_3")(x)
        x = _residual(x, width, f"{stage}_4")
    return x


def _convolution(x: Any, channels: int, prefix: str, number: int) -> Any:
    """Convolution and batch normalisation, numbered in PyTorch's ``Sequential``."""
    convolution = layers.Conv2D(
        channels, 3, padding="same", use_bias=False, name=f"{prefix}_{number}"
    )
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{prefix}_{number + 1}")(convolution(x))


def _residual(x: Any, channels: int, prefix: str) -> Any:
    body = _convolution(x, channels, f"{prefix}_body", 0)
    body = layers.ReLU(name=f"{prefix}_body_2")(body)
    body = _convolution(body, channels, f"{prefix}_body", 3)
    return layers.ReLU(name=f"{prefix}_relu")(layers.Add(name=f"{prefix}_add")([x, body]))


def _channels_last(tensor: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Turn PyTorch's kernels, output channels first, into Keras'."""
    return tensor.transpose((2, 3, 1, 0)) if tensor.ndim == 4 else tensor.T
