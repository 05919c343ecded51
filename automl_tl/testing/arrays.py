"""Arrays that checks draw, read and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from automl_tl.types import Source

    Array = NDArray[np.float32]
    Tensors = dict[str, NDArray[np.generic]]


def make_images(labels: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Draw images, uint8 ``(n, size, size, 3)``, whose classes can be told apart."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] // 4 % 2
    stripes = 100 * np.stack([y, x, 0 * x])[labels % 3][..., None]
    noise = random.integers(0, 150, (len(labels), size, size, 3))
    return (stripes + noise).astype(np.uint8)


def read(source: Source) -> Array:
    """Return the array of a source in float32."""
    return np.asarray(np.load(source.path), np.float32)


def difference(found: Array, expected: Array) -> float:
    """Return the largest difference, relative to the largest value; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / scale if scale else float(np.abs(found).max())


def changed(before: Tensors, after: Tensors) -> frozenset[str]:
    """Return the names of tensors that are no longer the same, bit for bit."""
    return frozenset(
        name
        for name, value in before.items()
        if name not in after or value.tobytes() != after[name].tobytes()
    )


def count(names: Iterable[str], before: Tensors, after: Tensors) -> int:
    """Return how many values tensors have.

    Those that are the same before and after are one tensor, which has several names.
    """
    sizes = {}
    for name in names:
        one = (tensors[name].tobytes() if name in tensors else b"" for tensors in (before, after))
        sizes[tuple(map(hash, one))] = before[name].size
    return sum(sizes.values())
