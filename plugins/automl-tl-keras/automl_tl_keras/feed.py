"""Feeds stored arrays to training: whole ones from memory, large ones from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import augment as views
from automl_tl.training.rows import Rows
from automl_tl_keras import augment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from automl_tl.types import Source


class Feed:
    """The images of one source, ready to be taken in any order.

    An array that fits in a quarter of the free RAM is read once; a larger one stays on disk and is
    read as it is used.

    Args:
        source: What to read.
        store: Arrays that are already in memory, by place and rows; shared by all feeds of a trial.

    Raises:
        CacheError: When the file cannot be read.
    """

    def __init__(self, source: Source, store: dict[Any, Any]) -> None:
        self.source = source
        self._rows = Rows(source)
        self._store = store
        rows = None if source.rows is None else source.rows.tobytes()
        self._key = source.path, rows
        self._parameters = views.draw(source.view, len(self._rows)) if source.view else None

    def __len__(self) -> int:
        return len(self._rows)

    def whole(self, place: Callable[[NDArray[Any]], Any]) -> Any | None:
        """Return all rows, placed on the device; None where they are too large for that.

        Args:
            place: Puts an array on the device.
        """
        key = "placed", *self._key
        if key not in self._store:
            if not self._rows.fits:
                return None
            self._store[key] = place(self._rows.chunk(0, len(self._rows)))
        return self._store[key]

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of each batch, to be taken next; the last batch may be smaller.

        Args:
            order: int64 positions in the source's rows.
            batch_size: Images a batch.
        """
        if self._array() is None:
            yield from self._rows.batches(order, batch_size)
            return
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]

    def take(self, positions: NDArray[np.int64]) -> Any:
        """Return the arrays at positions, augmented where the source says so.

        Pixels are ``(N, S, S, 3)``, uint8 or, once augmented, float32; anything else is float32
        in the layout of the cut.
        """
        array = self._array()
        x = self._rows.take(positions) if array is None else array[positions]
        if self._parameters is None:
            return x.astype(np.float32) if x.dtype == np.float16 else x
        parameters = views.ViewParameters(
            self._parameters.affine[positions], self._parameters.colour[positions]
        )
        return augment.apply(x, parameters)

    def _array(self) -> NDArray[Any] | None:
        if self._key not in self._store and self._rows.fits:
            self._store[self._key] = self._rows.chunk(0, len(self._rows))
        found: NDArray[Any] | None = self._store.get(self._key)
        return found
