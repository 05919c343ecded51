"""The decode-once cache: every image of a data set as uint8 squares, shared by all processes.

An array's key is the ordered hashes of the files' contents, the size, the resize rule and the
decoder's version, so that it serves every data set with the same images, wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.cache.decoding import Image, Target, decode_all
from automl_tl.data import decode
from automl_tl.data.reading import in_threads, read_image_file
from automl_tl.errors import ImageError
from automl_tl.machine import available_cpus
from automl_tl.pages import Pages, give_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from automl_tl.cache.entry import Entry
    from automl_tl.cache.store import Store
    from automl_tl.data.index import DataIndex

    Progress = Callable[[str, int, int], None]

KIND = "pixels"


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a data set.

    Attributes:
        hashes: SHA-256 of every file's bytes, in the index's order; empty for an unreadable file.
        broken: Reason by index of every image that cannot be used; its rows are zero.
        paths: By size, a ``.npy`` file of uint8 RGB ``(N, size, size, 3)`` in the index's order.
        dataset_hash: Identity of the ordered images, without their labels.
        decoded: Number of sound images that this call decoded; 0 when all was stored.
        median_side: Median of the sound images' shorter sides, in pixels.
        resize: The rule that the images were made square by.
    """

    hashes: tuple[str, ...]
    broken: Mapping[int, str]
    paths: Mapping[int, Path]
    dataset_hash: str
    decoded: int
    median_side: int
    resize: decode.Resize


@dataclass(frozen=True, slots=True)
class Files:
    """What reading the files of a data set tells, in the index's order.

    Attributes:
        hashes: SHA-256 of every file's bytes; empty for an unreadable file.
        unreadable: Reason by index.
    """

    hashes: tuple[str, ...]
    unreadable: Mapping[int, str]

    def of(self, rows: Sequence[int]) -> Files:
        """Return the same of these rows, in their order."""
        hashes = tuple(self.hashes[row] for row in rows)
        reasons = {n: self.unreadable[row] for n, row in enumerate(rows) if row in self.unreadable}
        return Files(hashes, reasons)


def key(dataset_hash: str, size: int, resize: str) -> dict[str, Any]:
    """Return the key of an array of pixels in the store."""
    return {
        "images": dataset_hash,
        "size": size,
        "resize": resize,
        "decoder": decode.VERSION,
    }


def identity(facts: Mapping[str, Any]) -> str:
    """Return the key of an array of pixels as one string."""
    return "/".join(str(facts[name]) for name in sorted(facts))


def prepare(
    index: DataIndex,
    sizes: Sequence[int],
    resize: decode.Resize,
    store: Store,
    progress: Progress | None = None,
    workers: int | None = None,
    files: Files | None = None,
) -> Pixels:
    """Find or make the arrays of a data set's pixels.

    Every file is read and hashed, unless that has been done. What is not stored is decoded in one
    pass over the images for all missing sizes together; other processes that want it wait.

    Args:
        index: The data set.
        sizes: Sides of the squares in pixels, at least one.
        resize: How an image becomes a square; see ``decode.decode``.
        store: Where the arrays are kept.
        progress: Called with ``reading`` or ``decoding``, images done, images in all.
        workers: Number of threads; the CPUs that this process may use by default.
        files: What ``read_files`` has returned.

    Raises:
        CacheError: An array does not fit.
        DataError: A file changed meanwhile.
    """
    notify: Progress = progress or _ignore
    files = files or read_files(index, notify, workers)
    hashes, broken = files.hashes, dict(files.unreadable)
    dataset_hash = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    keys = {size: key(dataset_hash, size, resize) for size in sizes}
    entries = {size: store.find(KIND, facts) for size, facts in keys.items()}
    decoded = 0

    def waiting() -> None:
        notify("waiting for another process", 0, 1)

    with ExitStack() as locks:
        missing = [size for size, entry in entries.items() if entry is None]
        for size in sorted(missing, key=lambda size: json.dumps(keys[size], sort_keys=True)):
            locks.enter_context(store.lock(KIND, keys[size], waiting))
            entries[size] = store.find(KIND, keys[size])
        missing = [size for size in missing if entries[size] is None]
        if missing:
            filling = _Filling(index, hashes, broken, resize)
            made, decoded = filling.run(
                {size: keys[size] for size in missing}, store, notify, workers
            )
            entries |= made
    give_back()
    complete = {size: entry for size, entry in entries.items() if entry is not None}
    for entry in complete.values():
        broken |= {int(row): reason for row, reason in entry.meta["broken"].items()}
    return Pixels(
        hashes=hashes,
        broken=dict(sorted(broken.items())),
        paths={size: entry.path for size, entry in complete.items()},
        dataset_hash=dataset_hash,
        decoded=decoded,
        median_side=next(iter(complete.values())).meta["median_side"],
        resize=resize,
    )


def read_files(
    index: DataIndex, progress: Progress | None = None, workers: int | None = None
) -> Files:
    """Read and hash every file, once; see ``prepare``."""

    def read(path: Path) -> tuple[str, str]:
        try:
            return hashlib.sha256(read_image_file(path)).hexdigest(), ""
        except ImageError as error:
            return "", str(error)

    hashes: list[str] = []
    broken: dict[int, str] = {}
    total = len(index.items)
    with closing(in_threads(read, (item.path for item in index.items), workers)) as results:
        for row, (digest, reason) in enumerate(results):
            hashes.append(digest)
            if not digest:
                broken[row] = reason
            if progress:
                progress("reading", row + 1, total)
    return Files(tuple(hashes), broken)


class _Filling:
    """Decodes the images of a data set into the arrays of several sizes."""

    def __init__(
        self,
        index: DataIndex,
        hashes: Sequence[str],
        unreadable: Mapping[int, str],
        resize: decode.Resize,
    ) -> None:
        self._items = index.items
        self._hashes = hashes
        self._unreadable = unreadable
        self._resize = resize

    def run(
        self,
        keys: Mapping[int, Mapping[str, Any]],
        store: Store,
        notify: Progress,
        workers: int | None,
    ) -> tuple[dict[int, Entry], int]:
        """Make and store the arrays; returns them and the number of sound images."""
        started = time.monotonic()
        rows = len(self._items)
        with ExitStack() as unfinished:
            partials = {}
            for size, key in keys.items():
                partials[size] = store.begin(KIND, key, (rows, size, size, 3), "uint8")
                unfinished.callback(partials[size].abort)
            paths = {size: partial.path for size, partial in partials.items()}
            firsts = self._firsts()
            seen: dict[int, int | str] = dict(self._unreadable)
            done = len(seen)

            def look() -> None:
                notify("decoding", done, rows)

            target = Target(paths, self._resize, workers or available_cpus())
            with closing(decode_all(self._distinct(firsts), target, look)) as results:
                for row, result in results:
                    seen[row] = result
                    done += 1
                    look()
            arrays = {size: partial.array() for size, partial in partials.items()}
            pages = {size: Pages(array) for size, array in arrays.items()}
            for row, first in enumerate(firsts):
                if first < row:
                    seen[row] = seen[first]
                    for size, array in arrays.items():
                        array[row] = array[first]
                        pages[size].touch(array[row])
                    done += 1
                    look()
            arrays.clear()
            broken = {str(row): seen[row] for row in sorted(seen) if isinstance(seen[row], str)}
            sides = [found for found in seen.values() if isinstance(found, int)]
            meta = {
                "broken": broken,
                "images": rows,
                "median_side": round(statistics.median(sides)) if sides else 0,
            }
            seconds = (time.monotonic() - started) / len(partials)
            entries = {size: partial.commit(meta, seconds) for size, partial in partials.items()}
            unfinished.pop_all()
        return entries, len(sides)

    def _distinct(self, firsts: Sequence[int]) -> Iterator[Image]:
        for row, digest in enumerate(self._hashes):
            if digest and firsts[row] == row:
                yield Image(row, self._items[row].path, digest)

    def _firsts(self) -> list[int]:
        """Return for every row the first one of the same content, which alone is decoded."""
        first: dict[str, int] = {}
        return [
            first.setdefault(digest, row) if digest else row
            for row, digest in enumerate(self._hashes)
        ]


def _ignore(what: str, done: int, total: int) -> None:
    pass
