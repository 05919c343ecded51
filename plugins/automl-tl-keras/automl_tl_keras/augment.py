"""Applying the core's augmentation parameters to a batch, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import ops

if TYPE_CHECKING:
    from automl_tl.augment import ViewParameters

_LUMA = (0.299, 0.587, 0.114)


def apply(pixels: Any, parameters: ViewParameters) -> Any:
    """Augment a batch as ``automl_tl.augment.ViewParameters`` says.

    The affine map first, sampled bilinearly and reflected at the border, then brightness, contrast
    around the mean luma and saturation, then one clip.

    Args:
        pixels: uint8 or float ``(n, height, width, 3)`` in ``[0, 255]``, of known height and width.
        parameters: One row an image; arrays, or tensors inside a compiled function.

    Returns:
        float32 ``(n, height, width, 3)`` in ``[0, 255]``.
    """
    pixels = ops.convert_to_tensor(pixels)
    affine = ops.convert_to_tensor(parameters.affine, "float32")
    colour = ops.convert_to_tensor(parameters.colour, "float32")
    images = _sample(pixels, affine)
    brightness, contrast, saturation = (colour[:, k, None, None, None] for k in range(3))
    images = images * brightness
    mean = ops.mean(_luma(images), axis=(1, 2), keepdims=True)
    images = (images - mean) * contrast + mean
    luma = _luma(images)
    return ops.clip((images - luma) * saturation + luma, 0, 255)


def _sample(pixels: Any, affine: Any) -> Any:
    count, (height, width) = ops.shape(pixels)[0], pixels.shape[1:3]
    x, y = _centres(width)[None, None, :], _centres(height)[None, :, None]
    a, b, c = (affine[:, :, k, None, None] for k in range(3))
    across, down = (a[:, k] * x + b[:, k] * y + c[:, k] for k in range(2))
    left, right, over = _neighbours(across, width)
    top, bottom, under = _neighbours(down, height)
    flat = ops.reshape(pixels, (-1, 3))
    first = ops.arange(count, dtype="int32")[:, None, None] * height

    def corner(row: Any, column: Any) -> Any:
        return ops.cast(ops.take(flat, (first + row) * width + column, axis=0), "float32")

    upper = corner(top, left) * (1 - over) + corner(top, right) * over
    lower = corner(bottom, left) * (1 - over) + corner(bottom, right) * over
    return upper * (1 - under) + lower * under


def _centres(size: int) -> Any:
    """Return the normalised coordinates of a side's pixels."""
    return (2 * ops.arange(size, dtype="float32") + 1) / size - 1


def _neighbours(coordinates: Any, size: int) -> tuple[Any, Any, Any]:
    """Return the pixels on both sides of normalised coordinates, and how far between them."""
    positions = ops.mod((coordinates + 1) * (size / 2), 2 * size)
    positions = ops.minimum(positions, 2 * size - positions) - 0.5
    positions = ops.clip(positions, 0, size - 1)
    before = ops.floor(positions)
    index = ops.cast(before, "int32")
    return index, ops.minimum(index + 1, size - 1), (positions - before)[..., None]


def _luma(images: Any) -> Any:
    return ops.sum(images * ops.convert_to_tensor(_LUMA, "float32"), axis=-1, keepdims=True)
