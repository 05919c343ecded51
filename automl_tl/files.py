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


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 file in one step; its folder must exist.

    Raises:
        OSError: When it cannot be written; the old file is then untouched.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step. ``NaN`` is refused with ``ValueError``."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ``OSError`` or ``ValueError``."""
    return json.loads(path.read_text(encoding="utf-8"))
