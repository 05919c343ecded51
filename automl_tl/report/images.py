"""The pictures of a report: from the pixel cache or, where that is gone, from the data's files."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.cache import pixels
from automl_tl.data import decode, sources
from automl_tl.data.reading import read_image_file
from automl_tl.errors import AutoMLError, ImageError
from automl_tl.plugins import get_plugins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_tl.cache.entry import Entry
    from automl_tl.cache.store import Store
    from automl_tl.data.index import DataIndex
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

SIDE = 144
"""Side of a thumbnail in pixels."""
_QUALITY = 78


class Images:
    """A study's images, as small squares. Opens nothing before the first is asked for.

    Args:
        directory: The study directory.
        data: The study's data.
        store: The cache.

    Attributes:
        problem: One sentence when the images are nowhere to be found, else None.
    """

    def __init__(self, directory: StudyDirectory, data: StudyData, store: Store) -> None:
        self._data = data
        self.problem: str | None = None
        self._array: NDArray[np.uint8] | None = None
        self._index: DataIndex | None = None
        if entry := _cached(data, store):
            self._array = entry.array()
            return
        try:
            index = sources.open_data(directory.config.data, store.root, get_plugins().datasets)
        except AutoMLError as error:
            self.problem = (
                "Pictures cannot be shown: the cache no longer has them, and they are not where "
                f"they were ({error})"
            )
            return
        if tuple(item.name for item in index.items) == data.names:
            self._index = index
        else:
            self.problem = (
                "Pictures cannot be shown: the cache no longer has them, and the images in "
                f"{directory.config.data} are no longer those of the study."
            )

    def square(self, row: int) -> NDArray[np.uint8] | None:
        """Return an image as a uint8 RGB square of any size; None when it cannot be had."""
        if self._array is not None:
            return np.asarray(self._array[row])
        if self._index is None:
            return None
        try:
            content = read_image_file(self._index.items[row].path)
            if hashlib.sha256(content).hexdigest() != self._data.hashes[row]:
                return None
            return decode.decode(content, SIDE, "squash")
        except ImageError:
            return None

    def thumbnail(self, row: int) -> str | None:
        """Return an image as a ``data:`` URL; None when it cannot be had."""
        from PIL import Image

        square = self.square(row)
        if square is None:
            return None
        small = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=_QUALITY, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _cached(data: StudyData, store: Store) -> Entry | None:
    """Return the smallest array that is large enough for a thumbnail, else the largest."""
    entries = [entry for entry in store.entries() if entry.meta["kind"] == pixels.KIND]
    own = [e for e in entries if e.meta.get("key", {}).get("images") == data.dataset_hash]
    enough = sorted(own, key=lambda e: (e.meta["key"]["size"] < SIDE, abs(_excess(e))))
    for entry in enough:
        if found := store.find(pixels.KIND, entry.meta["key"]):
            return found
    return None


def _excess(entry: Entry) -> int:
    return int(entry.meta["key"]["size"]) - SIDE
