"""The one decoder: from the bytes of an image file to a uint8 RGB square, whoever asks.

What a file is, its content says, never its name. The rules:

- EXIF orientation is applied; an EXIF block that cannot be read counts as absent.
- Colours and alpha become RGB as ``automl_tl.data.rgb`` says. Of an animation, the first frame
  counts.
- One antialiased bilinear resampling from the whole image. Bilinear is what torchvision's
  classifiers were trained and measured with, and unlike bicubic it cannot ring.
- A JPEG is decoded at 1/2, 1/4 or 1/8 where both sides still hold twice the target. On 50
  photographs (256 to 64 pixels) that moved pixels by 0.31 levels in the mean, 13 at most, where
  bicubic for bilinear moves them by 1.5; a 12-megapixel photograph at 224 takes 34 ms, not 93.
  The pixels of one size never depend on which other sizes are wanted.
"""

from __future__ import annotations

import functools
import io
import warnings
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
from PIL import Image

from automl_tl.data.rgb import to_rgb
from automl_tl.data.sniff import describe_failure
from automl_tl.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Resize = Literal["squash", "crop", "pad"]

VERSION = f"1/pillow-{PIL.__version__}"
"""Changes when the same file may give other pixels; part of every cache key."""

MAX_PIXELS = 178_956_970
"""More pixels than this are taken for a decompression bomb; Pillow's own bound for an error."""

PAD_COLOUR = (124, 116, 104)
"""ImageNet's mean, which normalisation turns to about zero: neither bright nor dark."""

# Formats of still images only. EPS would start Ghostscript; SPIDER, MCIDAS and other formats
# recognise nearly anything.
_FORMATS = (
    "JPEG PNG WEBP GIF BMP DIB TIFF AVIF JPEG2000 MPO PPM ICO TGA PCX SGI DDS QOI PSD ICNS".split()
)
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SAME_SHAPE = {
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
}
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image at several sizes.

    Attributes:
        pixels: One uint8 array ``(size, size, 3)`` for each size asked for, in that order.
        width: Of the file's image as people see it, orientation applied, in pixels.
        height: Likewise.
        format: Pillow's name of the file format (``JPEG``, ``PNG``, ...).
    """

    pixels: list[NDArray[np.uint8]]
    width: int
    height: int
    format: str


class _Quiet:
    """Silences Pillow's warnings while any thread is inside.

    Python's warning filters belong to the process, so threads that each changed and restored them
    would leave them changed: the first one in sets the filter and the last one out removes it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


quiet = _Quiet()
"""Context manager for whoever decodes many images, in threads or not; may be nested."""


def decode(data: bytes, size: int, resize: Resize) -> NDArray[np.uint8]:
    """Decode an image file to a square.

    Args:
        data: The file's content.
        size: Side of the square in pixels.
        resize: ``squash`` stretches the whole image to the square; ``crop`` takes the largest
            square at its centre; ``pad`` fits the whole image in, centred on ``PAD_COLOUR``.

    Returns:
        uint8 RGB ``(size, size, 3)``.

    Raises:
        ImageError: The file is no sound image; the message is a short reason such as
            ``truncated JPEG``, without the file's name.
    """
    return decode_sizes(data, (size,), resize).pixels[0]


def decode_many(data: bytes, sizes: Sequence[int], resize: Resize) -> list[NDArray[np.uint8]]:
    """Decode an image file to squares of several sizes; see ``decode``."""
    return decode_sizes(data, sizes, resize).pixels


def decode_sizes(data: bytes, sizes: Sequence[int], resize: Resize) -> Decoded:
    """Decode an image file once for several sizes, and say what the file was.

    Sizes that allow the same reduced scale of a JPEG share one decoding of it.

    Args:
        data: The file's content.
        sizes: Sides of the squares in pixels.
        resize: As for ``decode``.

    Raises:
        ImageError: As for ``decode``.
    """
    if not data:
        raise ImageError("empty file")
    with quiet:
        try:
            return _decode(data, sizes, resize)
        except ImageError:
            raise
        except Exception as error:  # Pillow's plugins let through nearly everything
            raise ImageError(describe_failure(data, error)) from error


def header_size(path: Path) -> tuple[int, int] | None:
    """Return width and height as an image file's header states them; None when it has none."""
    if not path.is_file():  # a pipe would wait for ever
        return None
    with quiet:
        try:
            with Image.open(path, formats=_formats()) as image:
                return image.size
        except Exception:  # as in decode_sizes
            return None


def _decode(data: bytes, sizes: Sequence[int], resize: Resize) -> Decoded:
    image = _open(data)
    kind = image.format or "unknown"
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"decompression bomb: {image.width} x {image.height} pixels")
    groups: dict[int, list[int]] = {}
    for size in sizes:
        groups.setdefault(_jpeg_scale(image, size), []).append(size)
    squares: dict[int, NDArray[np.uint8]] = {}
    width = height = 0
    for scale, group in groups.items():
        if squares:  # an image is loaded once, at one scale
            image = _open(data)
        with image:
            full = image.size
            drafted = None
            if scale > 1:
                drafted = image.draft(None, (full[0] // scale, full[1] // scale))
            image.load()
            turn = _turn(image)  # after load(): Pillow turns TIFFs itself and forgets the tag
            width, height = image.size if drafted is None else full
            if turn is not None and turn not in _SAME_SHAPE:
                width, height = height, width
            box = (0.0, 0.0, *image.size) if drafted is None else drafted[1]
            rgb = to_rgb(image)
            for size in group:
                squares[size] = _square(rgb, box, turn, size, resize)
    return Decoded([squares[size] for size in sizes], width, height, kind)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that are decoded, in lower case, with their dots."""
    names = _formats()
    return frozenset(s for s, name in Image.registered_extensions().items() if name in names)


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_formats())


def _jpeg_scale(image: Image.Image, size: int) -> int:
    """The coarsest scale of a JPEG that leaves both sides at least twice the target."""
    if image.format in {"JPEG", "MPO"}:
        for scale in (8, 4, 2):
            if min(image.size) >= 2 * size * scale:
                return scale
    return 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TRANSPOSE.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # an EXIF block may be broken in any way; the image is still sound
        return None


def _square(
    rgb: Image.Image, box: _Box, turn: Image.Transpose | None, size: int, resize: Resize
) -> NDArray[np.uint8]:
    """Resample the part ``box`` of an image, then turn it, which is cheaper than the reverse."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    target = (size, size)
    if resize == "crop":
        side = min(width, height)
        left, top = left + (width - side) / 2, top + (height - side) / 2
        box = (left, top, left + side, top + side)
    elif resize == "pad":
        ratio = size / max(width, height)
        target = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    small = rgb.resize(target, Image.Resampling.BILINEAR, box=box)
    if turn is not None:
        small = small.transpose(turn)
    if resize == "pad":
        canvas = Image.new("RGB", (size, size), PAD_COLOUR)
        canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
        small = canvas
    return np.array(small)
