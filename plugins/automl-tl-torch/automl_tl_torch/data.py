"""Feeds stored arrays to the device: whole ones from its memory or RAM, large ones from disk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from automl_tl import augment as views
from automl_tl.training.ahead import read_ahead
from automl_tl.training.rows import Rows
from automl_tl_torch import augment
from automl_tl_torch.device import memory_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.types import Source, View

_DEVICE_SHARE = 3
_CHUNK_BYTES = 256 << 20


class Indices:
    """Positions on a device; asked for the same array again, it copies nothing.

    Args:
        device: Where they are wanted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._last: tuple[NDArray[np.int64], Tensor] | None = None

    def __call__(self, positions: NDArray[np.int64]) -> Tensor:
        """Return int64 positions as a tensor."""
        if self._last is None or self._last[0] is not positions:
            index = torch.from_numpy(positions)
            if self.device.type == "cuda":
                index = index.pin_memory().to(self.device, non_blocking=True)
            self._last = positions, index
        return self._last[1]


class Feed:
    """The images of one source, ready to be taken in any order.

    An array that fits in a third of the device's free memory (CUDA) goes there; else one that
    fits in a quarter of the free RAM is read once; a larger one stays on disk and is read as it
    is used. Pixels stay uint8 until they are on the device.

    Args:
        source: What to read.
        indices: Of the device where tensors are wanted.
        store: Arrays that are already in memory, by place and rows; shared by all feeds of a trial.

    Raises:
        CacheError: When the file cannot be read.
    """

    def __init__(self, source: Source, indices: Indices, store: dict[Any, Tensor]) -> None:
        self.source = source
        self.device = indices.device
        self._indices = indices
        self._rows = Rows(source)
        self._tensor = self._resident(store)
        self._batch: tuple[NDArray[np.int64], Tensor] | None = None
        self._view = self._drawn(source.view) if source.view else None

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of each batch, to be taken next; the last batch may be smaller.

        Args:
            order: int64 positions in the source's rows.
            batch_size: Images a batch.
        """
        if self._tensor is not None and self._tensor.device.type == self.device.type:
            for start in range(0, len(order), batch_size):
                yield order[start : start + batch_size]
            return
        with closing(read_ahead(self._read(order, batch_size))) as ahead:
            try:
                for positions, batch in ahead:
                    self._batch = positions, batch
                    yield positions
            finally:
                self._batch = None

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the tensors at positions, on the device, augmented where the source says so.

        Pixels are ``(N, S, S, 3)``, uint8 or, once augmented, float32; anything else is float32
        in the layout of the cut.
        """
        x = self._gather(positions)
        if self._view is not None:
            index = self._indices(positions)
            return augment.transform(x, *(drawn.index_select(0, index) for drawn in self._view))
        if not self.source.cut:
            return x
        x = x.to(torch.float32)
        return x.contiguous(memory_format=memory_format(self.device)) if x.ndim == 4 else x

    def _drawn(self, view: View) -> tuple[Tensor, Tensor]:
        """Draw a view of all rows, on the device: a copy in each step would wait for it."""
        drawn = views.draw(view, len(self._rows))
        affine, colour = torch.from_numpy(drawn.affine), torch.from_numpy(drawn.colour)
        return affine.to(self.device), colour.to(self.device)

    def _gather(self, positions: NDArray[np.int64]) -> Tensor:
        if self._batch is not None:
            whole, batch = self._batch
            start = int(np.flatnonzero(whole == positions[0])[0])  # a part of it, or all
            part = batch[start : start + len(positions)]
            return part.to(self.device, non_blocking=True)
        assert self._tensor is not None, "what is not resident is taken in the order of batches"
        return self._tensor.index_select(0, self._indices(positions))

    def _read(
        self, order: NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield batches that are not on the device, in memory that it can copy from by itself."""
        for positions in self._rows.batches(order, batch_size):
            if self._tensor is None:
                batch = self._convert(self._rows.take(positions))
            else:
                batch = self._tensor.index_select(0, torch.from_numpy(positions))
            yield positions, batch.pin_memory() if self.device.type == "cuda" else batch

    def _resident(self, store: dict[Any, Tensor]) -> Tensor | None:
        """Return the rows as one tensor, or None when they are too large for that."""
        rows = None if self.source.rows is None else self.source.rows.tobytes()
        key = (self.source.path, rows)
        if key not in store:
            if self.device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(self.device)
                if self._rows.nbytes * _DEVICE_SHARE <= free:
                    store[key] = self._load(self.device)
            if key not in store and self._rows.fits:
                store[key] = self._load(torch.device("cpu"))
        return store.get(key)

    def _load(self, device: torch.device) -> Tensor:
        shape = (len(self._rows), *self._rows.shape)
        tensor = torch.empty(shape, dtype=self._dtype, device=device)
        step = max(1, _CHUNK_BYTES * len(self._rows) // max(1, self._rows.nbytes))
        for start in range(0, len(self._rows), step):
            chunk = self._rows.chunk(start, start + step)
            tensor[start : start + len(chunk)] = torch.from_numpy(chunk)
        return tensor

    def _convert(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        stored = {"uint8": torch.uint8, "float16": torch.float16}
        return stored.get(self._rows.dtype.name, torch.float32)
