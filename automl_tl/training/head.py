"""A head's size and first weights, the same in every framework."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from automl_tl.types import Head

_WEIGHTS = 0x48454144
"""Sets the draws of the head's weights apart from others of the same seed ("HEAD")."""


def kernels(head: Head, inputs: int, seed: int) -> list[NDArray[np.float32]]:
    """Draw the kernels of a head's dense layers: Glorot uniform; biases start at zero.

    They come from NumPy's ``default_rng([0x48454144, seed])``, layer after layer.

    Args:
        head: The head.
        inputs: Width that enters its first dense layer.
        seed: Of the draw.

    Returns:
        float32 ``(inputs, outputs)`` for every hidden layer and the classifier.
    """
    random = np.random.default_rng([_WEIGHTS, seed])
    found = []
    for outputs in (*head.units, head.classes):
        limit = math.sqrt(6 / (inputs + outputs))
        found.append(random.uniform(-limit, limit, (inputs, outputs)).astype(np.float32))
        inputs = outputs
    return found


def parameters(head: Head, inputs: int) -> int:
    """Return the number of a head's parameters.

    Args:
        head: The head.
        inputs: Width that enters its first dense layer.
    """
    return sum((a + 1) * b for a, b in pairwise((inputs, *head.units, head.classes)))


def decays(shape: Sequence[int]) -> bool:
    """Whether weight decay applies to a variable: to those with two axes longer than 1."""
    return sum(length > 1 for length in shape) > 1
