"""An array of the store, complete or being filled."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import CacheError
from automl_tl.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.cache.store import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """A complete array.

    Attributes:
        path: The ``.npy`` file.
        meta: What ``commit`` was given, and ``kind``, ``key``, ``shape``, ``dtype``, ``bytes``,
            ``seconds`` (what computing it took) and ``checksum``.
    """

    path: Path
    meta: Mapping[str, Any]

    def array(self) -> NDArray[Any]:
        """Return the array as a read-only memory map."""
        array: NDArray[Any] = np.load(self.path, mmap_mode="r")
        return array


@dataclass(frozen=True, slots=True)
class Partial:
    """An array that is being filled. Finish it with ``commit`` or ``abort``."""

    store: Store
    kind: str
    key: Mapping[str, Any]
    path: Path

    def array(self) -> NDArray[Any]:
        """Return the array as a writable memory map."""
        array: NDArray[Any] = np.load(self.path, mmap_mode="r+")
        return array

    def commit(self, meta: Mapping[str, Any], seconds: float) -> Entry:
        """Checksum the array, rename it into place and make room if the bound is exceeded.

        Raises:
            CacheError: When the disk is full.
        """
        array = np.load(self.path, mmap_mode="r")
        shape, dtype = list(array.shape), str(array.dtype)
        del array  # Windows renames no folder with an open map in it
        facts = {
            "seconds": seconds,
            **meta,
            "kind": self.kind,
            "key": dict(self.key),
            "shape": shape,
            "dtype": dtype,
            "bytes": self.path.stat().st_size,
            "checksum": checksum(self.path),
        }
        place = self.store.place(self.kind, self.key)
        try:
            write_json(self.path.parent / "meta.json", facts)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            self.path.parent.rename(place)
        except OSError as error:
            raise CacheError(
                f"{place} cannot be written ({error.strerror}): free some space, or set "
                "AUTOML_TL_CACHE to another disk."
            ) from None
        self.store.trust(place)
        self.store.shrink()
        return Entry(place / "data.npy", facts)

    def abort(self) -> None:
        """Forget it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def read_meta(path: Path) -> dict[str, Any]:
    """Read what is kept of an entry; raises ``OSError``, or ``ValueError`` when it is damaged."""
    meta = read_json(path)
    if not isinstance(meta, dict):
        raise ValueError
    for name in ("bytes", "seconds", "checksum"):
        value = meta.get(name, 0)
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError
    return meta
