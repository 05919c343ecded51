from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl_tl.data import decode
from automl_tl.data.sniff import describe_failure, may_be_picture
from tests.fuzz.mutations import fuzzed, mutated, read

FORMATS = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "GIF": ("P", "L"),
    "BMP": ("RGB", "L", "P"),
    "TIFF": ("RGB", "I;16", "CMYK", "LAB", "F"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("RGB", "L"),
}


def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    made = []
    for name, modes in FORMATS.items():
        for mode in modes:
            image = Image.fromarray(noise)
            image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
            buffer = io.BytesIO()
            exif = image.getexif()
            exif[0x0112] = 6
            image.save(buffer, name, **({"exif": exif} if name in {"JPEG", "WEBP"} else {}))
            made.append(buffer.getvalue())
    return made


PICTURES = pictures()


@fuzzed
@given(mutated(PICTURES), st.sampled_from(("squash", "crop", "pad")), st.integers(1, 40))
def test_an_image_is_decoded_or_refused(data: bytes, resize: decode.Resize, size: int) -> None:
    pixels = read(decode.decode, data, size, resize)
    if pixels is not None:
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8


@fuzzed
@given(mutated(PICTURES))
def test_a_failure_is_described(data: bytes) -> None:
    may_be_picture(data[:64])
    assert "\n" not in describe_failure(data, ValueError("broken"))
