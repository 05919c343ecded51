"""Files beside images in a folder that were never meant to be any: notes, tables, models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.data.decode import suffixes
from automl_tl.data.sniff import may_be_picture

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = 1024


def is_stray(path: Path) -> bool:
    """Whether neither the name nor the content of a file says that it is a picture.

    What claims to be an image and is none, is broken instead, and so is what cannot be read.
    """
    if path.suffix.lower() in suffixes():
        return False
    try:
        if not path.is_file():  # a pipe would wait for ever
            return True
        with path.open("rb") as file:
            return not may_be_picture(file.read(_HEAD))
    except OSError:
        return False
