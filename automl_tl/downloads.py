"""Tells how far a download is by looking at the file that grows, whoever downloads it."""

from __future__ import annotations

import os
import threading
import urllib.request
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from automl_tl.specs import PretrainedWeights
    from automl_tl.stages import Stage

EVERY = 0.25
"""Seconds between two looks."""
_TIMEOUT = 10.0
_FEW = 100


@contextmanager
def watched(weights: PretrainedWeights, stage: Stage) -> Iterator[None]:
    """Tell how many bytes of a weights file are there, while the context downloads it.

    Both frameworks write beside the file, under a name that holds its own, and rename at the end.

    Args:
        weights: Where the file will lie, and where it comes from, which is asked for its size.
        stage: Told in another thread; at the end, 1 of 1. Of a file that is there, nothing.
    """
    path = weights.path()
    if path.is_file():
        yield
        return
    over = threading.Event()
    what = f"downloading {path.name}"
    before = set(_beside(path))
    asked = (path, before, weights.url, what, stage, over)
    watch = threading.Thread(target=_watch, args=asked, daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join(2 * EVERY)
        stage(what, 1, 1, "bytes")


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


def _watch(
    path: Path,
    before: Set[Path],
    url: str | None,
    what: str,
    stage: Stage,
    over: threading.Event,
) -> None:
    sizes: list[int] = []
    if url:
        threading.Thread(target=lambda: sizes.append(_length(url)), daemon=True).start()
    while not over.wait(EVERY):
        grown = [size for file, size in _beside(path).items() if file not in before]
        stage(what, max(grown, default=0), sizes[0] if sizes else 0, "bytes")


def _beside(path: Path) -> dict[Path, int]:
    """Return the files that may become this one, with their sizes."""
    found = {}
    with suppress(OSError):
        for file in path.parent.iterdir():
            if path.name in file.name:
                with suppress(OSError):
                    found[file] = file.stat().st_size
    return found


def _length(url: str) -> int:
    """Return the size of a file on a server, 0 when it does not tell."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            return int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError):
        return 0
