"""The decoder on the odd files that the project was given, each decided on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from automl_tl.data import decode
from automl_tl.errors import ImageError

SHARED = Path(os.environ.get("AUTOML_TL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
ODD = SHARED / "odd"
pytestmark = pytest.mark.skipif(not ODD.is_dir(), reason=f"the odd files are not at {ODD}")

BROKEN = {
    "pillow_broken.png": "broken PNG",
    "pillow_decompression_bomb.gif": "decompression bomb: 4364696535 pixels",
    "pillow_png_decompression_dos.png": (
        "decompression bomb: a text chunk that unpacks to more than 1 MB"
    ),
    "pillow_truncated_image.png": "truncated PNG",
    "pillow_truncated_jpeg.jpg": "truncated JPEG",
    "pillow_zero_width.gif": "zero width (GIF)",
    "text_named.jpg": "not an image (text)",
    "truncated_100bytes.jpg": "truncated JPEG",
    "truncated_half_glass1.jpg": "truncated JPEG",
    "zero_bytes.jpg": "empty file",
}


def read(name: str) -> bytes:
    return (ODD / name).read_bytes()


def colour(name: str) -> list[float]:
    return decode.decode(read(name), 64, "squash").mean(axis=(0, 1)).tolist()


def test_what_is_broken_and_why() -> None:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(ODD.iterdir()):
            data = path.read_bytes()
            try:
                assert decode.decode(data, 32, "squash").shape == (32, 32, 3)
            except ImageError as error:
                found[path.name] = str(error)
    assert {name: found.get(name) for name in BROKEN} == BROKEN
    others = {
        name for name in found if name.startswith(("pillow_", "exif_")) and name not in BROKEN
    }
    assert not others


def test_orientations_agree() -> None:
    names = [f"exif_Landscape_{orientation}.jpg" for orientation in (3, 6, 8)]
    first, *others = [decode.decode(read(name), 64, "squash").astype(int) for name in names]
    for other in others:
        assert np.abs(first - other).mean() < 8


@pytest.mark.parametrize(
    "name",
    ["hopper.Lab.tif", "hopper.avif", "hopper.gif", "hopper.tif", "hopper.webp"],
)
def test_the_same_picture_in_every_format(name: str) -> None:
    assert colour(f"pillow_{name}") == pytest.approx(colour("pillow_hopper.bmp"), abs=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pillow_tRNS_null_1x1.png", [255, 255, 255]),  # one transparent pixel
        ("pillow_16bit.cropped.tif", [1.5, 1.5, 1.5]),  # 291 to 694 of 65535: dark, not white
        ("pillow_no_palette.gif", [0, 0, 0]),
        ("pillow_truncated_exif_dpi.jpg", [255, 255, 255]),  # only its EXIF is truncated
        ("pillow_transparent.gif", colour("rgba_png_named.jpg") if ODD.is_dir() else []),
    ],
)
def test_colours(name: str, expected: list[float]) -> None:
    assert colour(name) == pytest.approx(expected, abs=1)


def test_an_adobe_cmyk_sample_has_its_colours() -> None:
    pixels = decode.decode(read("pillow_pil_sample_cmyk.jpg"), 100, "squash").astype(int)
    red, green, blue = pixels[0, 0]
    assert red > 200 and green < 60 and blue < 60
    assert pixels[99, 99].max() < 40
