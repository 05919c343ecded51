"""Decodes images into arrays, in the process that ``data.decoding`` keeps for it."""

from __future__ import annotations

import hashlib
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.data import decode
from automl_tl.data.decoding import Decoder
from automl_tl.errors import DataError
from automl_tl.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    Result = int | str | DataError

_GROUP = 8


@dataclass(frozen=True, slots=True)
class Image:
    """An image to decode: its row in the arrays, its file and the SHA-256 that it should have."""

    row: int
    path: Path
    digest: str

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: by size, an existing ``.npy`` file of uint8 RGB; how; by how many threads."""

    arrays: Mapping[int, Path]
    resize: decode.Resize
    workers: int

    def start(self) -> Callable[[Image], Result]:
        """See ``data.decoding.Job``."""
        arrays = {size: np.load(path, mmap_mode="r+") for size, path in self.arrays.items()}
        pages = {size: Pages(array) for size, array in arrays.items()}

        def fill(image: Image) -> Result:
            path = image.path
            data = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(data).hexdigest() != image.digest:
                return DataError(
                    f"{path} changed while the data set was read: expected files that stay as they "
                    "are; start again once nothing writes to them."
                )
            decoded = decode.decode_sizes(data, list(arrays), self.resize)
            for size, pixels in zip(arrays, decoded.pixels, strict=True):
                arrays[size][image.row] = pixels
                pages[size].touch(pixels)
            return min(decoded.width, decoded.height)

        return fill


def decode_all(
    images: Iterable[Image], target: Target, look: Callable[[], None]
) -> Generator[tuple[int, int | str], None, None]:
    """Decode images; yields row and shorter side in pixels, or why the image is broken, in order.

    Close the iterator when it is left early.

    Args:
        images: Taken when there is room.
        target: Where to.
        look: Called once a second while nothing is done; may raise.

    Raises:
        DataError: A file is no longer what it was, or the process was ended by something else than
            an image.
    """
    rows: deque[int] = deque()

    def noted() -> Iterator[Image]:
        for image in images:
            rows.append(image.row)
            yield image

    with (
        Decoder(target, target.workers, _GROUP) as decoder,
        closing(decoder.results(noted(), look)) as results,
    ):
        for result in results:
            if isinstance(result, DataError):
                raise result
            yield rows.popleft(), result
