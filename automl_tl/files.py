"""Files that are written aside and renamed, so that nobody ever reads half of one."""

from __future__ import annotations

import json
import os
import tokenize
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


DAMAGED_ARRAY = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError)
"""What ``np.load`` raises of a file that is no array, the last two of a header in disorder."""


_NAMES = "surrogateescape"
"""How Python holds the bytes of a file name that is no UTF-8."""


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 file in one step; its folder must exist.

    The bytes of a file name that is no UTF-8 are written as they are; ``read_text`` reads them.

    Raises:
        OSError: When it cannot be written; the old file is then untouched.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with aside.open("w", encoding="utf-8", errors=_NAMES, newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str:
    """Read what ``write_text`` wrote, line breaks as they are. Raises ``OSError``."""
    return path.read_bytes().decode("utf-8", _NAMES)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step. ``NaN`` is refused with ``ValueError``."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ``OSError`` or ``ValueError``."""
    return json.loads(read_text(path))
