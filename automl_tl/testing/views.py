"""Augmentation in NumPy, written out from the formulas of ``automl_tl.augment``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_tl.augment import ViewParameters

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augmented(pixels: NDArray[np.generic], drawn: ViewParameters) -> NDArray[np.float32]:
    """Augment images ``(n, height, width, 3)``; see ``automl_tl.augment.ViewParameters``.

    Args:
        pixels: Values in ``[0, 255]``.
        drawn: One row an image.

    Returns:
        float32, of the same shape, in ``[0, 255]``.
    """
    height, width = pixels.shape[1:3]
    x = (2 * np.arange(width) + 1) / width - 1
    y = (2 * np.arange(height) + 1) / height - 1
    places = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
    found = np.empty(pixels.shape, np.float32)
    for index, (affine, factors) in enumerate(zip(drawn.affine, drawn.colour, strict=True)):
        across, down = np.moveaxis(places @ affine.T, -1, 0)
        found[index] = _coloured(_sampled(pixels[index].astype(np.float32), across, down), factors)
    return found


def _sampled(
    image: NDArray[np.float32], across: NDArray[np.float64], down: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sample bilinearly at normalised coordinates, reflected at the border."""
    left, right, over = _neighbours(across, image.shape[1])
    top, bottom, under = _neighbours(down, image.shape[0])
    upper = image[top, left] * (1 - over) + image[top, right] * over
    lower = image[bottom, left] * (1 - over) + image[bottom, right] * over
    return np.asarray(upper * (1 - under) + lower * under, np.float32)


def _neighbours(
    coordinates: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixels on both sides, and how far between them."""
    positions = np.mod((coordinates + 1) * size / 2, 2 * size)
    positions = np.clip(np.minimum(positions, 2 * size - positions) - 0.5, 0, size - 1)
    before = np.floor(positions).astype(np.int64)
    return before, np.minimum(before + 1, size - 1), (positions - before)[..., None]


def _coloured(image: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    brightness, contrast, saturation = factors
    image = image * brightness
    mean = (image @ _LUMA).mean()
    image = (image - mean) * contrast + mean
    luma = (image @ _LUMA)[..., None]
    return np.asarray(np.clip((image - luma) * saturation + luma, 0, 255), np.float32)
