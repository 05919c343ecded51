"""What goes first when the cache is full: what saves the fewest seconds per byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from automl_tl.cache.entry import Entry

HALF_LIFE_DAYS = 7.0
USE_SECONDS = 600.0


def victims(entries: Iterable[Entry], excess: int) -> list[Entry]:
    """Choose entries to evict, the least useful first, until ``excess`` bytes are freed.

    An entry saves the seconds that computing it took; they count half after seven days without
    use. What any process used in the last ten minutes stays.
    """
    chosen: list[Entry] = []
    for entry in sorted(entries, key=_worth):
        if excess <= 0:
            break
        if _idle(entry) >= USE_SECONDS:
            chosen.append(entry)
            excess -= int(entry.meta["bytes"])
    return chosen


def _idle(entry: Entry) -> float:
    """Seconds since the last use."""
    try:
        return max(0.0, time.time() - (entry.path.parent / "meta.json").stat().st_mtime)
    except OSError:
        return float("inf")


def _worth(entry: Entry) -> float:
    decay = 0.5 ** (_idle(entry) / 86400 / HALF_LIFE_DAYS)
    return float(entry.meta["seconds"] / max(1, entry.meta["bytes"]) * decay)
