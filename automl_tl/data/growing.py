"""How far a download is that something else writes: by how much its folder has grown."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from automl_tl.stages import Stage

EVERY = 0.25
"""Seconds between two looks."""
_FEW = 100


@contextmanager
def growing(folder: Path, name: str, total: int, stage: Stage) -> Iterator[None]:
    """Tell how many bytes a folder has grown by, while the context downloads something into it.

    Args:
        folder: Where it is written, at most three folders deeper; need not exist.
        name: What is downloaded.
        total: How many bytes, about; from then on it is being prepared, which has no measure.
        stage: Told in another thread. Of a folder that does not grow, nothing.
    """
    over = threading.Event()
    before = _size(folder)
    what = (f"downloading {name}", f"preparing {name}")
    told: set[str] = set()

    def watch() -> None:
        while not over.wait(EVERY):
            grown = _size(folder) - before
            if grown >= total:
                finish(what[0])
                told.add(what[1])
                stage(what[1], 0, 0, "bytes")
                return
            if grown > 0:
                told.add(what[0])
                stage(what[0], grown, total, "bytes")

    def finish(part: str) -> None:
        if part in told:
            told.discard(part)
            stage(part, 1, 1, "bytes")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * EVERY)
        for part in what:
            finish(part)


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
