"""Every rule of the decoder, on images made here with known pixels."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from automl_tl.data import decode
from automl_tl.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: Pillow cannot write the rarer kinds. ``raw`` has its filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", zlib.compress(raw)),
            chunk(b"IEND", b""),
        ]
    )


def photo(width: int, height: int) -> Image.Image:
    """Smooth, asymmetric colours."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 / max(1, width - 1), y * 255 / max(1, height - 1)
    blue = 127 + 100 * np.sin(x / width * 9) * np.cos(y / height * 7)
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def one(data: bytes) -> list[int]:
    """The colour of a one-pixel image."""
    return decode.decode(data, 1, "squash")[0, 0].tolist()


def test_shape_and_type() -> None:
    pixels = decode.decode(encode(photo(50, 20), "PNG"), 16, "squash")
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


def test_the_same_size_changes_nothing() -> None:
    image = photo(24, 24)
    assert np.array_equal(decode.decode(encode(image, "PNG"), 24, "squash"), np.asarray(image))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (1, 1), 77), [77, 77, 77]),
        (Image.new("LA", (1, 1), (100, 0)), [255, 255, 255]),
        (Image.new("LA", (1, 1), (100, 255)), [100, 100, 100]),
        (Image.new("RGBA", (1, 1), (200, 100, 0, 0)), [255, 255, 255]),
        (Image.new("RGBA", (1, 1), (200, 100, 0, 128)), [227, 177, 127]),
        (Image.new("RGBA", (1, 1), (200, 100, 0, 255)), [200, 100, 0]),
        (Image.new("1", (1, 1), 1), [255, 255, 255]),
        (Image.new("1", (1, 1), 0), [0, 0, 0]),
        (Image.new("I;16", (1, 1), 0x1234), [18, 18, 18]),
        (Image.new("I;16", (1, 1), 65535), [255, 255, 255]),
        (Image.new("I;16", (1, 1), 257 * 99 + 128), [99, 99, 99]),
    ],
)
def test_png_modes(image: Image.Image, expected: list[int]) -> None:
    assert one(encode(image, "PNG")) == pytest.approx(expected, abs=1)


def test_palettes() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    colours = decode.decode(encode(image, "PNG"), 2, "squash")[0].tolist()
    assert colours == [[10, 20, 30], [40, 50, 60]]
    assert one(encode(image.crop((0, 0, 1, 1)), "PNG", transparency=0)) == [255, 255, 255]
    half = encode(image.crop((0, 0, 1, 1)), "PNG", transparency=bytes([128, 255]))
    assert one(half) == pytest.approx([132, 137, 142], abs=1)


@pytest.mark.parametrize(
    ("depth", "colour", "pixel", "key", "expected"),
    [
        (16, 0, struct.pack(">H", 0x1234), struct.pack(">H", 0x1234), [255, 255, 255]),
        (16, 0, struct.pack(">H", 0x1234), struct.pack(">H", 0x1235), [18, 18, 18]),
        (16, 2, struct.pack(">HHH", 0x4000, 9, 0x8000), None, [64, 0, 128]),
        (16, 2, struct.pack(">HHH", 0x4000, 9, 0x8000), b"\x40\0\0\x09\x80\0", [255, 255, 255]),
        (8, 2, bytes([1, 2, 3]), b"\0\x01\0\x02\0\x03", [255, 255, 255]),
        (8, 2, bytes([1, 2, 3]), b"\0\x01\0\x02\0\x04", [1, 2, 3]),
        (16, 4, struct.pack(">HH", 0x4000, 0xFFFF), None, [64, 64, 64]),
        (16, 6, struct.pack(">HHHH", 0x4000, 9, 0x8000, 0), None, [255, 255, 255]),
    ],
)
def test_png_depths_and_transparent_colours(
    depth: int, colour: int, pixel: bytes, key: bytes | None, expected: list[int]
) -> None:
    extra = [chunk(b"tRNS", key)] if key else []
    assert one(png(1, 1, depth, colour, b"\0" + pixel, *extra)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5, 1.0]], [0, 128, 255]),
        ([[0.0, 100.0, 255.0]], [0, 100, 255]),
        ([[0.0, 257.0, 65535.0]], [0, 1, 255]),
        ([[-1.0, 0.0, 1.0]], [0, 128, 255]),
        ([[0.0, float("nan"), 1.0]], [0, 0, 255]),
    ],
)
def test_floats(values: list[list[float]], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array(values * 3, np.float32)), "TIFF")
    assert decode.decode(data, 3, "squash")[1, :, 0].tolist() == pytest.approx(expected, abs=1)


def test_long_integers() -> None:
    values = np.array([[0, 100, 255]] * 3, np.int32)
    assert decode.decode(encode(Image.fromarray(values), "TIFF"), 3, "squash")[0, 1, 0] == 100
    wide = encode(Image.fromarray(values * 257), "TIFF")
    assert decode.decode(wide, 3, "squash")[0, 1, 0] == 100
    dark_pgm = b"P5 1 1 65535\n" + struct.pack(">H", 255)
    assert one(dark_pgm) == [1, 1, 1]


def test_cmyk_jpeg_is_inverted_as_adobe_writes_it() -> None:
    cyan = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert one(cyan) == pytest.approx([0, 255, 255], abs=3)
    black = encode(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG", quality=100)
    assert one(black) == pytest.approx([0, 0, 0], abs=3)


def test_lab_goes_through_its_colour_space() -> None:
    lab = Image.new("LAB", (4, 4), (255, 128, 128))
    assert one(encode(lab, "TIFF")) == pytest.approx([255, 255, 255], abs=6)


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert one(data) == [255, 0, 0], format


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, format: str, resize: decode.Resize) -> None:
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    method = decode._TRANSPOSE.get(undo)
    upright = photo(60, 40)
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if format == "JPEG" else {}
    if format == "WEBP":
        options = {"lossless": True}
    found = decode.decode_sizes(encode(stored, format, exif=exif, **options), (21,), resize)
    expected = decode.decode(encode(upright, "PNG"), 21, resize)
    assert (found.width, found.height) == (60, 40)
    assert np.abs(found.pixels[0].astype(int) - expected).mean() < 2


def test_a_broken_exif_block_does_not_break_the_image() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0"
    assert one(encode(Image.new("RGB", (9, 9), (0, 0, 254)), "JPEG", exif=exif))[2] > 250


def test_squash_crop_and_pad() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste("lime", (10, 0, 20, 10))
    data = encode(image, "PNG")
    squashed = decode.decode(data, 30, "squash")
    assert squashed[15, 2].tolist() == [255, 0, 0]
    assert squashed[15, 15].tolist() == [0, 255, 0]
    assert (decode.decode(data, 10, "crop") == [0, 255, 0]).all()
    padded = decode.decode(data, 30, "pad")
    assert padded[0, 0].tolist() == padded[29, 29].tolist() == list(decode.PAD_COLOUR)
    assert padded[15, 2].tolist() == [255, 0, 0]
    assert (padded != decode.PAD_COLOUR).any(axis=2).sum() == 30 * 10
    thin = decode.decode(encode(Image.new("RGB", (1, 500), "red"), "PNG"), 8, "pad")
    assert (thin == [255, 0, 0]).all(axis=2).sum() == 8


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode.decode(encode(Image.fromarray(stripes), "PNG"), 8, "squash")
    assert np.abs(small.astype(int) - 127).max() < 12


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_large_jpegs_are_decoded_reduced_and_nearly_the_same(resize: decode.Resize) -> None:
    image = photo(1003, 701)
    data = encode(image, "JPEG", quality=95)
    full = decode.decode(encode(Image.open(io.BytesIO(data)), "PNG"), 40, resize)
    reduced = decode.decode_sizes(data, (40,), resize)
    assert (reduced.width, reduced.height) == (1003, 701)
    difference = np.abs(reduced.pixels[0].astype(int) - full)
    assert 0 < difference.max() <= 6
    assert difference.mean() < 0.6


def test_a_size_does_not_depend_on_its_company() -> None:
    data = encode(photo(1003, 701), "JPEG", quality=95)
    sizes = (224, 16, 64, 160)
    for size, pixels in zip(sizes, decode.decode_many(data, sizes, "crop"), strict=True):
        assert np.array_equal(pixels, decode.decode(data, size, "crop")), size


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, world\n", "not an image (text)"),
        ("grüße".encode(), "not an image (text)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image (SVG drawing)"),
        (b'<?xml version="1.0"?>\n<svg/>', "not an image (SVG drawing)"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image (HTML page)"),
        (b"%PDF-1.7 ...", "not an image (PDF)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image (PostScript)"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "not an image (HEIC photo, convert it to JPEG)"),
        (bytes(range(256)), "not an image (unknown content)"),
        (half(encode(NOISE, "JPEG")), "truncated JPEG"),
        (encode(NOISE, "JPEG")[:400], "truncated JPEG"),
        (half(encode(NOISE, "PNG")), "truncated PNG"),
        (half(encode(NOISE, "BMP")), "truncated BMP"),
        (encode(NOISE, "GIF")[:900], "truncated GIF"),
        (png(0, 5, 8, 2, b""), "zero width (PNG)"),
        (png(5, 0, 8, 2, b""), "zero height (PNG)"),
        (b"GIF89a\0\0\x05\0\x80\0\0" + bytes(20), "zero width (GIF)"),
        (png(50000, 50000, 8, 0, b""), "decompression bomb: 50000 x 50000 pixels"),
        (png(14000, 13000, 8, 0, b""), "decompression bomb: 14000 x 13000 pixels"),
    ],
)
def test_what_is_no_sound_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as error:
        decode.decode(data, 8, "squash")
    assert str(error.value) == reason


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_chunks_that_unpack_to_much_are_refused(kind: bytes) -> None:
    bomb = chunk(kind, b"x\0\0" + zlib.compress(bytes(5_000_000)))
    with pytest.raises(ImageError, match=r"^decompression bomb"):
        decode.decode(png(1, 1, 8, 0, b"\0\0", bomb), 8, "squash")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_damaged_bytes_never_raise_anything_else(format: str) -> None:
    sound = encode(NOISE, format)
    random = np.random.default_rng(1)
    for _ in range(60):
        broken = bytearray(sound)
        for position in random.integers(0, min(len(sound), 400), 4):
            broken[position] = random.integers(0, 256)
        try:
            assert decode.decode(bytes(broken), 8, "crop").shape == (8, 8, 3)
        except ImageError as error:
            assert str(error)


def test_no_warning_leaks_and_no_filter_stays() -> None:
    large = png(9500, 9500, 1, 0, b"\0" * (9500 * 1189))  # Pillow warns from 89 million pixels on
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0"
    corrupt = encode(NOISE, "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        threads = [
            threading.Thread(target=lambda: [decode.decode(corrupt, 8, "pad") for _ in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        decode.decode(large, 8, "squash")
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == before
        with pytest.raises(UserWarning):
            warnings.warn("still an error", stacklevel=1)


def test_pillow_is_left_as_it_was() -> None:
    from PIL import ImageFile

    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    decode.decode(encode(NOISE, "PNG"), 8, "squash")
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before


def test_the_header_tells_the_size(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encode(photo(50, 20), "JPEG"))
    assert decode.header_size(tmp_path / "x") == (50, 20)
    (tmp_path / "x").write_text("no image")
    assert decode.header_size(tmp_path / "x") is None
    assert decode.header_size(tmp_path) is None
