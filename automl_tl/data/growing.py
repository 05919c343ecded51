"""How far a download is that something else writes: by how much its folder has grown."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automl_tl.downloads import Measure

_FEW = 100


def growth(folder: Path, name: str, total: int) -> Measure:
    """Return what measures by how many bytes a folder has grown since this call.

    Args:
        folder: Where something is downloaded to, at most three folders deeper; need not exist.
        name: What is downloaded.
        total: How many bytes, about; from then on it is being prepared, which has no measure.
    """
    before = _size(folder)
    whole = False

    def measure() -> tuple[str, int, int] | None:
        nonlocal whole
        grown = 0 if whole else _size(folder) - before
        whole = whole or grown >= total
        if whole:
            return f"preparing {name}", 0, 0
        return (f"downloading {name}", grown, total) if grown > 0 else None

    return measure


def _size(folder: Path, depth: int = 3) -> int:
    """Return what the files in a folder add up to, of a hundred in each: downloads are few."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _FEW):
            if entry.is_file():
                total += entry.stat().st_size
            elif depth and entry.is_dir():
                total += _size(Path(entry.path), depth - 1)
    return total
