"""A content-addressed store of arrays on disk, shared by all studies and processes of a user.

```
ROOT/KIND/ab/abcd.../data.npy    the array, memory-mapped by its readers
                     meta.json   key, checksum, what it cost to compute; its mtime is the last use
ROOT/KIND/abcd....json           small facts
ROOT/partial/abcd.../            being filled; renamed into place when complete, deleted by anyone
                                 who finds its lock free
ROOT/locks/abcd....lock          held while filling; the kernel frees it when its owner dies
ROOT/downloads/                  weights files, which nothing can compute again
```
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.cache import contents, partials
from automl_tl.cache.entry import Entry, Partial, checksum, read_meta
from automl_tl.cache.eviction import USE_SECONDS, victims
from automl_tl.errors import CacheError
from automl_tl.files import read_json, write_json
from automl_tl.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

HOLD_SECONDS = USE_SECONDS / 10
_LAYOUT = 1


class Store:
    """The store. Cheap to create; every process has its own over the same folder.

    Args:
        root: The folder; as ``contents.default_root`` says by default.
        max_bytes: Bound on what is kept; as ``contents.default_bound`` says by default.

    Raises:
        CacheError: When the folder cannot be created or written.
    """

    def __init__(self, root: Path | None = None, max_bytes: int | None = None) -> None:
        self.root = (root or contents.default_root()).absolute()
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"The cache folder {self.root} cannot be written ({error.strerror}): "
                "set AUTOML_TL_CACHE to a folder that can."
            ) from None
        self.max_bytes = contents.default_bound(self.root) if max_bytes is None else max_bytes
        self._trusted: set[Path] = set()
        self._held: set[Path] = set()
        self._said = float("-inf")

    def place(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return the folder of an entry, whether it exists or not."""
        digest = _digest(kind, key)
        return self.root / kind / digest[:2] / digest

    def trust(self, place: Path) -> None:
        """Remember that the entry's checksum held; this process verifies it no more."""
        self._trusted.add(place)

    def touch(self, path: Path) -> bool:
        """Say that an entry's array is in use, which protects it; False when it is gone."""
        try:
            os.utime(path.parent / "meta.json")
        except OSError:
            return False
        self._held.add(path)
        return True

    def hold(self) -> None:
        """Say again, once a minute, that all is in use that was found or touched since ``let_go``.

        For whoever reads arrays for longer than use protects them.
        """
        now = time.monotonic()
        if now - self._said >= HOLD_SECONDS:
            self._said = now
            for path in tuple(self._held):
                self.touch(path)

    def let_go(self) -> None:
        """Hold no longer what was found or touched so far."""
        self._held.clear()

    def find(self, kind: str, key: Mapping[str, Any]) -> Entry | None:
        """Return a complete entry, or None.

        The checksum is verified the first time; an entry that fails is deleted, so that its array
        is computed again.
        """
        place = self.place(kind, key)
        path = place / "data.npy"
        try:
            meta = read_meta(place / "meta.json")
            if place not in self._trusted:
                if checksum(path) != meta["checksum"]:
                    raise ValueError
                self.trust(place)
            os.utime(place / "meta.json")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError):
            shutil.rmtree(place, ignore_errors=True)
            return None
        self._held.add(path)
        return Entry(path, meta)

    def has(self, kind: str, key: Mapping[str, Any]) -> bool:
        """Say whether there is an entry, without verifying it."""
        return (self.place(kind, key) / "meta.json").is_file()

    def price(self, size: int) -> float:
        """Return the seconds that evicting others for ``size`` more bytes would cost, as known.

        Infinity when too much is in use, so that ``begin`` would find no room.
        """
        entries = self.entries()
        excess = contents.used(self.root, entries) + size - self.max_bytes
        chosen = victims(entries, excess)
        if sum(int(entry.meta["bytes"]) for entry in chosen) < excess:
            return math.inf
        return sum(float(entry.meta["seconds"]) for entry in chosen)

    @contextmanager
    def lock(
        self, kind: str, key: Mapping[str, Any], waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Hold the entry's lock, waiting for it; another process may be filling it.

        Args:
            kind: Kind of the entry.
            key: Its key.
            waiting: Called four times a second while another process holds it; may raise.
        """
        from filelock import Timeout

        lock = partials.lock_of(self.root, _digest(kind, key))
        while True:
            try:
                lock.acquire(timeout=0.25)
                break
            except Timeout:
                if waiting:
                    waiting()
        try:
            yield
        finally:
            lock.release()

    def begin(
        self, kind: str, key: Mapping[str, Any], shape: tuple[int, ...], dtype: str
    ) -> Partial:
        """Create an array to fill. Needs the entry's lock.

        Raises:
            CacheError: When it is larger than the bound or the disk has no room for it.
        """
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size > self.max_bytes:
            raise CacheError(
                f"An array of {format_bytes(size)} exceeds the cache's bound of "
                f"{format_bytes(self.max_bytes)}: raise AUTOML_TL_CACHE_SIZE, or free some space, "
                "half of which is the bound otherwise."
            )
        folder = self._partial(kind, key)
        shutil.rmtree(folder, ignore_errors=True)
        self.shrink(reserve=size)
        used = contents.used(self.root, self.entries())
        if used + size > self.max_bytes:
            raise CacheError(
                f"The cache holds {format_bytes(used)} that is in use and has no room for "
                f"{format_bytes(size)} more within its bound of {format_bytes(self.max_bytes)}: "
                "raise AUTOML_TL_CACHE_SIZE."
            )
        try:
            path = partials.allocate(folder, shape, dtype)
        except OSError as error:
            raise CacheError(
                f"No room for {format_bytes(size)} under {self.root} ({error.strerror}): free some "
                "space, run `automl-tl cache clear`, or set AUTOML_TL_CACHE to another disk."
            ) from None
        return Partial(self, kind, key, path)

    def get(
        self,
        kind: str,
        key: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: str,
        fill: Callable[[Path], Mapping[str, Any] | None],
        waiting: Callable[[], None] | None = None,
    ) -> tuple[Entry, bool]:
        """Return an entry, computing it when it is missing, and whether it was computed now.

        Args:
            kind: Kind of the entry.
            key: Its key.
            shape: Of the array.
            dtype: Of the array.
            fill: Fills the existing ``.npy`` file; returns what else to keep in ``Entry.meta``, and
                ``seconds`` when it knows better than the clock around it what filling again takes.
            waiting: As for ``lock``.

        Raises:
            CacheError: As ``begin``.
        """
        if entry := self.find(kind, key):
            return entry, False
        with self.lock(kind, key, waiting):
            if entry := self.find(kind, key):
                return entry, False
            partial = self.begin(kind, key, shape, dtype)
            started = time.monotonic()
            try:
                meta = fill(partial.path) or {}
                return partial.commit(meta, time.monotonic() - started), True
            except BaseException:
                partial.abort()
                raise

    @contextmanager
    def scratch(self, kind: str, key: Mapping[str, Any]) -> Iterator[Path]:
        """Give a folder for a while. Needs the lock of that name, as within ``remember``."""
        folder = self._partial(kind, key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remember(
        self,
        kind: str,
        key: Mapping[str, Any],
        make: Callable[[], Any],
        valid: Callable[[Any], bool] = lambda _: True,
    ) -> Any:
        """Return a small JSON value, made by one of many when it is missing, unreadable or stale.

        Args:
            kind: Names its folder.
            key: JSON-ready, of the value.
            make: Returns it.
            valid: Whether one that was made before holds.
        """
        path = self.root / kind / f"{_digest(kind, key)}.json"
        with suppress(OSError, ValueError):
            if valid(value := read_json(path)):
                return value
        with self.lock(kind, key):
            with suppress(OSError, ValueError):
                if valid(value := read_json(path)):
                    return value
            value = make()
            with suppress(OSError):  # it is made again the next time
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, value)
        return value

    def entries(self) -> list[Entry]:
        """Return all complete entries."""
        return contents.entries(self.root)

    def discard(self, entry: Entry) -> None:
        """Delete an entry."""
        shutil.rmtree(entry.path.parent, ignore_errors=True)
        self._trusted.discard(entry.path.parent)

    def shrink(self, reserve: int = 0) -> list[Entry]:
        """Evict what saves the fewest seconds per byte until the bound holds; see ``eviction``.

        What a killed process left half filled goes in any case.

        Args:
            reserve: Bytes that are about to be added.
        """
        partials.sweep(self.root)
        entries = self.entries()
        excess = contents.used(self.root, entries) + reserve - self.max_bytes
        evicted = victims(entries, excess)
        for entry in evicted:
            self.discard(entry)
        return evicted

    def _partial(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self.root / "partial" / _digest(kind, key)


def _digest(kind: str, key: Mapping[str, Any]) -> str:
    text = json.dumps([_LAYOUT, kind, dict(key)], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
