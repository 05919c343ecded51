"""Feeds stored arrays to the device: whole ones from its memory or RAM, large ones from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from automl_tl import augment as views
from automl_tl.errors import CacheError
from automl_tl_torch import augment
from automl_tl_torch.device import memory_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.types import Source

BLOCK = 64
"""Images that lie together on disk and are read together."""
WINDOW = 128
"""Blocks that are mixed with one another."""
_RAM_SHARE = 4
_DEVICE_SHARE = 3
_MIXED_BYTES = 1 << 30
_CHUNK_BYTES = 256 << 20


def shuffled(images: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw an order to train in that suits a disk, whatever the images are stored in.

    Blocks of 64 neighbours are shuffled; then all images of 128 blocks at a time. Up to 8,192
    images this is a plain shuffle. It depends on the number of images and the generator only, so
    that training from any cut sees the same order.
    """
    blocks = random.permutation(-(-images // BLOCK))
    order = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    order = order[order < images]
    for start in range(0, images, BLOCK * WINDOW):
        random.shuffle(order[start : start + BLOCK * WINDOW])
    return order


class Feed:
    """The images of one source, ready to be taken in any order.

    An array that fits in a third of the device's free memory (CUDA) goes there; else one that
    fits in a quarter of the free RAM is read once; a larger one stays on disk and is read as it
    is used. Pixels stay uint8 until they are on the device.

    Args:
        source: What to read.
        device: Where tensors are wanted.
        store: Arrays that are already in memory, by place and rows; shared by all feeds of a trial.

    Raises:
        CacheError: When the file cannot be read.
    """

    def __init__(self, source: Source, device: torch.device, store: dict[Any, Tensor]) -> None:
        try:
            array = np.load(source.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CacheError(
                f"{source.path}: expected a stored array, but it cannot be read ({error}); clear "
                "the cache with `automl-tl cache clear` and try again."
            ) from error
        self.source = source
        self.device = device
        self._array = array
        self._rows = np.arange(len(array)) if source.rows is None else source.rows
        self._tensor = self._resident(store)
        self._window: tuple[NDArray[np.int64], Tensor] | None = None
        self._parameters = views.draw(source.view, len(self._rows)) if source.view else None

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of each batch, to be taken next; the last batch may be smaller.

        Args:
            order: int64 positions in the source's rows.
            batch_size: Images a batch.
        """
        for start in range(0, len(order), batch_size):
            if self._tensor is None:
                self._read_ahead(order, start, batch_size)
            yield order[start : start + batch_size]

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the tensors at positions, on the device, augmented where the source says so.

        Pixels are ``(N, S, S, 3)``, uint8 or, once augmented, float32; anything else is float32
        in the layout of the cut.
        """
        x = self._gather(positions)
        if self._parameters is not None:
            parameters = views.ViewParameters(
                self._parameters.affine[positions], self._parameters.colour[positions]
            )
            return augment.apply(x, parameters)
        if self.source.cut and x.ndim == 4:
            return x.contiguous(memory_format=memory_format(self.device))
        return x

    def _gather(self, positions: NDArray[np.int64]) -> Tensor:
        if self._tensor is None:
            return self._from_disk(positions)
        index = torch.from_numpy(positions)
        if self._tensor.device.type == self.device.type:
            return self._tensor.index_select(0, index.to(self.device))
        return self._to_device(self._tensor.index_select(0, index))

    def _to_device(self, x: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True)
        return x.to(self.device)

    def _resident(self, store: dict[Any, Tensor]) -> Tensor | None:
        """Return the rows as one tensor, or None when they are too large for that."""
        rows = None if self.source.rows is None else self.source.rows.tobytes()
        key = (self.source.path, rows)
        if key not in store:
            size = len(self._rows) * self._array[:1].nbytes
            if self.device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(self.device)
                if size * _DEVICE_SHARE <= free:
                    store[key] = self._load(self.device)
            if key not in store and size * _RAM_SHARE <= psutil.virtual_memory().available:
                store[key] = self._load(torch.device("cpu"))
        return store.get(key)

    def _load(self, device: torch.device) -> Tensor:
        shape = (len(self._rows), *self._array.shape[1:])
        tensor = torch.empty(shape, dtype=_dtype(self._array), device=device)
        step = max(1, _CHUNK_BYTES // max(1, self._array[:1].nbytes))
        for start in range(0, len(self._rows), step):
            chunk = self._array[self._rows[start : start + step]]
            tensor[start : start + len(chunk)] = torch.from_numpy(chunk)
        return tensor

    def _from_disk(self, positions: NDArray[np.int64]) -> Tensor:
        if self._window is not None:
            held, tensor = self._window
            found = np.searchsorted(held, positions)
            return self._to_device(tensor[torch.from_numpy(found)])
        return self._to_device(self._read(positions))

    def _read(self, positions: NDArray[np.int64]) -> Tensor:
        """Read positions in the order of the disk."""
        by_row = np.argsort(self._rows[positions])
        out = np.empty((len(positions), *self._array.shape[1:]), self._array.dtype)
        out[by_row] = self._array[self._rows[positions[by_row]]]
        return torch.from_numpy(out).to(_dtype(self._array))

    def _read_ahead(self, order: NDArray[np.int64], start: int, batch_size: int) -> None:
        """Read the images that are mixed with one another at once, when they are small.

        Rows of many kilobytes are read as fast one by one, and a window of them is too large.
        """
        span = max(1, BLOCK * WINDOW // batch_size) * batch_size
        if span * self._array[:1].nbytes > _MIXED_BYTES or start % span:
            return
        held = np.sort(order[start : start + span])
        self._window = held, self._read(held)


def _dtype(array: NDArray[Any]) -> torch.dtype:
    return torch.uint8 if array.dtype == np.uint8 else torch.float32
