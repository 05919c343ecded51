"""Turns every kind of pixel that Pillow reads into RGB, by the rules that people expect.

- Alpha, in whatever form, is composited over white.
- 16-bit grey is divided by 257 (12-bit TIFF by 4095 / 255). Pillow reads 16-bit colour by its high
  byte, which is at most one level lower. 32-bit integers and floats say nothing about their range:
  the smallest of ``[0, 1]`` (floats only), ``[0, 255]`` and ``[0, 65535]`` that holds the image is
  its range, and its own minimum and maximum are where none does.
- CMYK goes to RGB by Pillow's formula; CMYK JPEGs are taken as inverted, as Adobe and everyone
  after it writes them. LAB goes through LittleCMS. Other colour profiles are ignored, as Keras and
  torchvision do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS_PER_SAMPLE = 258


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in the mode ``RGB``."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _grey(_from_16_bit(image))
    if image.mode in {"I", "F"}:
        return _grey(_from_unbounded(image))
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a 16-bit PNG, whose pixels Pillow reduced
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba.convert("RGB"), mask=alpha)
    return white


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def _from_16_bit(image: Image.Image) -> NDArray[np.uint8]:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    top = 4095 if bits == (12,) else 65535
    values = np.asarray(image).astype(np.uint32)
    grey = ((np.minimum(values, top) * 255 + top // 2) // top).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return grey


def _from_unbounded(image: Image.Image) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ranges = [1, 255, 65535] if image.mode == "F" else [255, 65535]
    if image.format == "PPM" and image.mode == "I":
        ranges = [65535]  # Pillow has scaled the file's own maximum to it
    for top in ranges:
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top)).astype(np.uint8)
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)
