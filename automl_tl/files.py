"""Files that are written aside and renamed, so that nobody ever reads half of one."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tokenize
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


DAMAGED_ARRAY = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError)
"""What ``np.load`` raises of a file that is no array, the last two of a header in disorder."""


_NAMES = "surrogateescape"
"""How Python holds the bytes of a file name that is no UTF-8."""

_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{32}(\.\w+)?")
_NAME_LENGTH = 50
"""A longer name is cut, because file systems allow about 255 bytes in all."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a hidden name beside a path to write to; rename it to the path when all went well.

    The name ends in the path's suffix, which some writers go by. A file replaces a file; a folder
    may be written there too, but replaces nothing. What an exception leaves is deleted.

    Raises:
        OSError: When it cannot be renamed; the old file is then untouched.
    """
    name = path.name[:_NAME_LENGTH]
    aside = path.with_name(f".{name}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def left_aside(path: Path) -> Iterator[Path]:
    """Yield what ``written_aside`` gave names to for this path, and is there."""
    yield from path.parent.glob(f".{glob.escape(path.name[:_NAME_LENGTH])}.{'[0-9a-f]' * 32}*")


def intended(name: str) -> str | None:
    """Return which file one that is being written will become; None for any other file's name."""
    found = _ASIDE.fullmatch(name)
    return found and found[1]


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 file in one step; its folder must exist.

    The bytes of a file name that is no UTF-8 are written as they are; ``read_text`` reads them.

    Raises:
        OSError: When it cannot be written; the old file is then untouched.
    """
    with written_aside(path) as aside:
        with aside.open("w", encoding="utf-8", errors=_NAMES, newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def read_text(path: Path) -> str:
    """Read what ``write_text`` wrote, line breaks as they are. Raises ``OSError``."""
    return path.read_bytes().decode("utf-8", _NAMES)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step. ``NaN`` is refused with ``ValueError``."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ``OSError`` or ``ValueError``."""
    return json.loads(read_text(path))
