"""Memory-mapped arrays that may be larger than a process should be, and memory given back.

The pages of a map that were touched count as a process's resident memory until the system wants
them back, so that running once over an array of 3 GB makes it look 3 GB large: to a person, and to
whatever kills processes that are too large.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_BYTES = 32 << 20
"""As much of a map stays resident at most, as its reader and writer count."""


class Pages:
    """Gives the pages of an array back to the system once many of them were touched.

    What was written stays: the system writes it to the disk. What is needed again is read again,
    from the system's cache as a rule. Does nothing for arrays that are not shared memory maps, nor
    where the system cannot do it (Windows).

    Args:
        array: ``np.load`` with ``mmap_mode`` ``r`` or ``r+``, and views of it.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        self._map: mmap.mmap | None = base if hasattr(mmap, "MADV_DONTNEED") else None
        self._touched = 0

    def touch(self, touched: NDArray[Any]) -> None:
        """Count what was just read from the map or written to it. Safe in any thread."""
        self._touched += touched.nbytes
        if self._touched >= KEPT_BYTES and self._map is not None:
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)


def give_back() -> None:
    """Give memory that was freed back to the system; glibc keeps it for later.

    After work on many small files or arrays that is most of what it took. Does nothing elsewhere.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
