"""Says in a few words why Pillow could not read a file, from the file's own bytes."""

from __future__ import annotations

import re
import struct

_SIGNATURES = {
    "JPEG": b"\xff\xd8",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF": b"(?:II\\*\0|MM\0\\*|II\\+\0|MM\0\\+)",
    "WebP": b"RIFF....WEBP",
    "AVIF": b"....ftypavi[fs]",
    "JPEG 2000": b"(?:\0\0\0\x0cjP  |\xff\x4f\xff\x51)",
    "PPM": b"P[1-6][ \\t\\r\\n#]",
    "ICO": b"\0\0\1\0",
    "DDS": b"DDS ",
    "QOI": b"qoif",
    "PSD": b"8BPS",
}
_PICTURES = {
    "HEIC photo, convert it to JPEG": b"....ftyp(?:heic|heix|hevc|mif1|msf1)",
    "JPEG XL, convert it to JPEG": b"(?:\xff\x0a|\0\0\0\x0cJXL )",
}
_FOREIGN = {
    **_PICTURES,
    "video": b"(?:....ftyp|\x1aE\xdf\xa3|RIFF....AVI )",
    "PDF": b"%PDF",
    "PostScript": b"%!PS",
    "SVG drawing": b"\\s*(?:<\\?xml.{0,400})?(?:<!--.{0,400})?<svg",
    "HTML page": b"\\s*<(?:!doctype )?html",
    "zip archive": b"PK\3\4",
    "compressed file": b"(?:\x1f\x8b|BZh|\xfd7zXZ)",
}


def may_be_picture(head: bytes) -> bool:
    """Whether a file's first 1024 bytes are those of a photo or drawing, readable here or not."""
    return _match(_SIGNATURES | _PICTURES, head) is not None


def describe_failure(data: bytes, error: Exception) -> str:
    """Return a short reason such as ``truncated JPEG`` or ``not an image (text)``.

    Args:
        data: The file's content, not empty.
        error: What Pillow raised.
    """
    text = str(error)
    kind = _match(_SIGNATURES, data)
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    if bomb := re.search(r"\((\d+) pixels\).*decompression bomb", text):
        width, height = _declared_size(data, kind) or (0, 0)
        is_whole = width * height == int(bomb[1])  # a frame may be larger than the image
        return f"decompression bomb: {f'{width} x {height}' if is_whole else bomb[1]} pixels"
    if "Decompressed data too large" in text:
        return "decompression bomb: a text chunk that unpacks to more than 1 MB"
    if kind is None:
        return f"not an image ({_content(data)})"
    return _damage(data, kind, error)


def _damage(data: bytes, kind: str, error: Exception) -> str:
    text = str(error)
    for side, length in zip(("width", "height"), _declared_size(data, kind), strict=False):
        if length == 0:
            return f"zero {side} ({kind})"
    if isinstance(error, EOFError | struct.error | IndexError) or "truncated" in text.lower():
        return f"truncated {kind}"
    if not text or "cannot identify" in text:
        return f"{'truncated' if _ends_in_header(data, kind) else 'broken'} {kind}"
    return f"broken {kind} ({text.splitlines()[0].rstrip('.')[:80]})"


def _ends_in_header(data: bytes, kind: str) -> bool:
    if kind == "PNG":
        return b"\0\0\0\rIHDR".startswith(data[8:16]) and b"IDAT" not in data
    return kind == "JPEG" and b"\xff\xda" not in data


def _match(patterns: dict[str, bytes], data: bytes) -> str | None:
    head = data[:1024]
    for name, pattern in patterns.items():
        if re.match(pattern, head, re.DOTALL | (re.IGNORECASE if "<" in str(pattern) else 0)):
            return name
    return None


def _content(data: bytes) -> str:
    if foreign := _match(_FOREIGN, data):
        return foreign
    head = data[:1024]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # more than a character cut in two
            return "unknown content"
        text = head[: error.start].decode()
    return "text" if text.isprintable() or not re.search(r"[\0-\x08\x0e-\x1f]", text) else "binary"


def _declared_size(data: bytes, kind: str | None) -> tuple[int, int] | tuple[()]:
    """Width and height as the header has them; empty when they are not found."""
    try:
        if kind == "PNG":
            width, height = struct.unpack_from(">II", data, 16)
        elif kind == "GIF":
            width, height = struct.unpack_from("<HH", data, 6)
        elif kind == "BMP":
            width, height = struct.unpack_from("<ii", data, 18)
        elif kind == "JPEG" and (
            found := re.search(b"\xff[\xc0-\xc3]\0.\x08(....)", data, re.DOTALL)
        ):
            height, width = struct.unpack(">HH", found[1])
        else:
            return ()
    except struct.error:
        return ()
    return width, height
