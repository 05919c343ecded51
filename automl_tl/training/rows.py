"""Reading the rows of a stored array in any order, from memory or from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import CacheError
from automl_tl.files import DAMAGED_ARRAY
from automl_tl.machine import memory
from automl_tl.pages import Pages
from automl_tl.training.order import BLOCK, WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from automl_tl.types import Source

_RAM_SHARE = 4
_MIXED_BYTES = 1 << 30


class Rows:
    """The rows of a source, in the source's order.

    Args:
        source: What to read.

    Attributes:
        source: What is read.
        shape: Of one image's array.
        dtype: Of the array.

    Raises:
        CacheError: When the file cannot be read.
    """

    def __init__(self, source: Source) -> None:
        try:
            array = np.load(source.path, mmap_mode="r", allow_pickle=False)
        except DAMAGED_ARRAY as error:
            raise CacheError(
                f"{source.path}: expected a stored array, but it cannot be read ({error}); clear "
                "the cache with `automl-tl cache clear` and try again."
            ) from error
        self.source = source
        self._array = array
        self._pages = Pages(array)
        self._rows = np.arange(len(array)) if source.rows is None else source.rows
        self._window: tuple[NDArray[np.int64], NDArray[Any]] | None = None
        self.shape: tuple[int, ...] = array.shape[1:]
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self._rows) * int(self._array[:1].nbytes)

    @property
    def fits(self) -> bool:
        """Whether the rows fit in a quarter of the free RAM."""
        return self.nbytes * _RAM_SHARE <= memory().available

    def chunk(self, start: int, stop: int) -> NDArray[Any]:
        """Read consecutive positions."""
        chunk = np.asarray(self._array[self._rows[start:stop]])
        self._pages.touch(chunk)
        return chunk

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of each batch, to be taken next, and read ahead from the disk.

        Rows that are mixed with one another are read at once when they are small; rows of many
        kilobytes are read as fast one by one, and a window of them is too large.

        Args:
            order: int64 positions in the source's rows.
            batch_size: Images a batch; the last batch may be smaller.
        """
        span = max(1, BLOCK * WINDOW // batch_size) * batch_size
        small = span * self._array[:1].nbytes <= _MIXED_BYTES
        for start in range(0, len(order), batch_size):
            if small and not start % span:
                held = np.sort(order[start : start + span])
                self._window = held, self._read(held)
            yield order[start : start + batch_size]
        self._window = None

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the arrays at positions, ``(len(positions), *shape)``."""
        if self._window is None:
            return self._read(positions)
        held, array = self._window
        return np.asarray(array[np.searchsorted(held, positions)])

    def _read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Read positions in the order of the disk."""
        by_row = np.argsort(self._rows[positions])
        out = np.empty((len(positions), *self.shape), self.dtype)
        out[by_row] = self._array[self._rows[positions[by_row]]]
        self._pages.touch(out)
        return out
