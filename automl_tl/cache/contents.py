"""What lies in a cache: its complete entries, what is being filled, and how much it all is."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.cache import partials
from automl_tl.cache.entry import Entry, read_meta
from automl_tl.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

DOWNLOADS = "downloads"
MAX_BYTES = 50 * 1024**3


def default_root() -> Path:
    """Return ``$AUTOML_TL_CACHE``, or the user's cache folder."""
    if setting := os.environ.get("AUTOML_TL_CACHE"):
        return Path(setting).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("automl-tl", appauthor=False))


def default_bound(root: Path) -> int:
    """Return ``$AUTOML_TL_CACHE_SIZE``, or half of the disk that is free or ours, 50 GiB at most.

    Raises:
        UsageError: When the variable is no size.
    """
    if setting := os.environ.get("AUTOML_TL_CACHE_SIZE"):
        return parse_bytes(setting)
    ours = used(root, entries(root))
    return min(MAX_BYTES, (shutil.disk_usage(root).free + ours) // 2)


def entries(root: Path) -> list[Entry]:
    """Return all complete entries."""
    found = []
    for path in root.glob("*/??/*/meta.json"):
        with suppress(OSError, ValueError):
            meta = read_meta(path)
            if {"kind", "bytes", "seconds"} <= set(meta):
                found.append(Entry(path.parent / "data.npy", meta))
    return found


def used(root: Path, known: Iterable[Entry]) -> int:
    """Return the bytes of its entries and of what is being filled."""
    return sum(int(entry.meta["bytes"]) for entry in known) + partials.count(root)[1]


def usage(root: Path) -> list[dict[str, Any]]:
    """Return entries, bytes and the seconds that computing them took, a kind.

    What is being filled, or was when its process was killed, is of the kind ``partial``.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for entry in entries(root):
        kind = str(entry.meta["kind"])
        row = kinds.setdefault(kind, {"kind": kind, "entries": 0, "bytes": 0, "seconds": 0.0})
        row["entries"] += 1
        row["bytes"] += entry.meta["bytes"]
        row["seconds"] += entry.meta["seconds"]
    number, size = partials.count(root)
    if number:
        kinds["partial"] = {"kind": "partial", "entries": number, "bytes": size, "seconds": 0.0}
    return [kinds[kind] for kind in sorted(kinds)]


def clear(root: Path) -> int:
    """Delete all but locks, downloads and what is being filled; returns the bytes freed."""
    before = used(root, entries(root))
    partials.sweep(root)
    for folder in root.iterdir():
        if folder.name not in ("locks", "partial", DOWNLOADS):
            shutil.rmtree(folder, ignore_errors=True)
    return before - used(root, entries(root))
