"""Durations, sizes and counts as people write them."""

from __future__ import annotations

import math
import re
import sys

from automl_tl.errors import UsageError

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_duration(text: str | float) -> float:
    """Return seconds; ``90``, ``90s``, ``30m``, ``1h30m`` and ``1.5h`` are understood.

    Raises:
        UsageError: For anything else, and for zero.
    """
    cleaned = str(text).strip().lower().replace(" ", "")
    match = _DURATION.fullmatch(cleaned)
    if match and any(match.groups()):
        hours, minutes, seconds = (float(group or 0) for group in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        if 0 < total < math.inf:
            return total
    raise UsageError(f"Expected a duration such as 90s, 30m or 1h30m, got {str(text)!r}.")


def is_number(value: object) -> bool:
    """Whether a value is a number that a float holds, and finite; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is a whole number, not below the least."""
    return isinstance(value, int) and is_number(value) and value >= least


def format_duration(seconds: float) -> str:
    """Return ``0.4s``, ``59s``, ``4m 10s`` or ``2h 05m``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def parse_bytes(text: str | float) -> int:
    """Return bytes; ``500M``, ``20GB`` and ``1.5 GiB`` are understood, in powers of 1024.

    Raises:
        UsageError: For anything else.
    """
    match = _BYTES.fullmatch(str(text).strip())
    if not match:
        raise UsageError(f"Expected a size such as 500M or 20GB, got {str(text)!r}.")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def format_bytes(size: float) -> str:
    """Return ``812 B``, ``4.2 MiB`` or ``1.0 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def plural(count: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``, ``3 classes``, ``4 copies`` or ``5 arrays``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("s"):
        return f"{count} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}s"


def are(count: int) -> str:
    """Return the verb for so many things: ``is`` or ``are``."""
    return "is" if count == 1 else "are"
