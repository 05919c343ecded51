"""The head: which variables it has, what they start from, and the Keras layers it is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.training.head import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras
    from numpy.typing import NDArray

    from automl_tl.types import Head, Pooling, TrainJob


def head_inputs(head: Head, output_shape: Sequence[int]) -> int:
    """Return the width that enters a head's first dense layer.

    Args:
        head: The head.
        output_shape: Of one image's tensor at the backbone's end: ``(H, W, C)`` or ``(F,)``.
    """
    return math.prod(output_shape) if head.pooling == "flatten" else int(output_shape[-1])


def sizes(head: Head, output_shape: Sequence[int]) -> dict[str, int]:
    """Return the number of parameters of each of a head's variables, by the names of ``draw``.

    Args:
        head: The head.
        output_shape: Of one image's tensor at the backbone's end: ``(H, W, C)`` or ``(F,)``.
    """
    inputs = head_inputs(head, output_shape)
    found: dict[str, int] = {}
    for index, outputs in enumerate((*head.units, head.classes)):
        found |= {f"dense_{index}/kernel": inputs * outputs, f"dense_{index}/bias": outputs}
        inputs = outputs
    return found


def start(job: TrainJob) -> dict[str, NDArray[np.float32]]:
    """Return the weights that a job's head starts from, named as by ``draw``."""
    shape = job.info.cuts[-1].shape
    if job.head_weights is None:
        return draw(job.head, shape, job.seed)
    return dict(zip(sizes(job.head, shape), job.head_weights, strict=True))


def draw(head: Head, output_shape: Sequence[int], seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the weights that a head starts from, those of every framework.

    The rows of the first kernel are drawn for a flattened ``(C, H, W)`` and put in the order of
    ``(H, W, C)``, so that a head of the same seed is the same function in every framework.

    Args:
        head: The head.
        output_shape: Of one image's tensor at the backbone's end: ``(H, W, C)`` or ``(F,)``.
        seed: Of the draw.

    Returns:
        float32 kernels ``(inputs, outputs)`` and biases ``(outputs,)`` by their names
        ``dense_0/kernel``, ``dense_0/bias``, ...; the classifier is the last layer.
    """
    drawn = kernels(head, head_inputs(head, output_shape), seed)
    if head.pooling == "flatten" and len(output_shape) == 3:
        drawn[0] = _channels_last(drawn[0], output_shape)
    found = {}
    for index, kernel in enumerate(drawn):
        found[f"dense_{index}/kernel"] = kernel
        found[f"dense_{index}/bias"] = np.zeros(kernel.shape[1], np.float32)
    return found


def layers(head: Head, output_shape: Sequence[int]) -> list[keras.Layer]:
    """Make a head of standard Keras layers, to be applied one after the other, in float32.

    The dense layers are named ``dense_0``, ``dense_1``, ...; the last one gives the logits.

    Args:
        head: The head.
        output_shape: Of one image's tensor at the backbone's end: ``(H, W, C)`` or ``(F,)``.
    """
    from keras import layers as kinds

    found = _pooling(head.pooling, output_shape)
    found.append(kinds.Rescaling(head.scale, dtype="float32", name="scale"))
    for index, units in enumerate(head.units):
        found.append(kinds.Dense(units, activation="relu", dtype="float32", name=f"dense_{index}"))
        found.append(kinds.Dropout(head.dropout, dtype="float32", name=f"dropout_{index}"))
    if not head.units:
        found.append(kinds.Dropout(head.dropout, dtype="float32", name="dropout_0"))
    last = f"dense_{len(head.units)}"
    return [*found, kinds.Dense(head.classes, dtype="float32", name=last)]


def _pooling(pooling: Pooling, output_shape: Sequence[int]) -> list[keras.Layer]:
    from keras import layers as kinds

    if len(output_shape) != 3:
        return []
    match pooling:
        case "avg":
            return [kinds.GlobalAveragePooling2D(dtype="float32", name="pooling")]
        case "max":
            return [kinds.GlobalMaxPooling2D(dtype="float32", name="pooling")]
        case "flatten":
            return [kinds.Flatten(dtype="float32", name="pooling")]


def _channels_last(kernel: NDArray[np.float32], output_shape: Sequence[int]) -> NDArray[np.float32]:
    """Reorder a kernel's rows from ``(C, H, W)`` to ``(H, W, C)``."""
    height, width, channels = output_shape
    rows = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    return np.ascontiguousarray(rows.reshape(kernel.shape))
