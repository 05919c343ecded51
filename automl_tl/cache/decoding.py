"""Decodes images into arrays in a process of its own, so that a decoder's crash costs an image.

The libraries below Pillow are C, and a file may be made to crash them. The images that were under
way then are decoded once more, one at a time: the one that ends the process again is the culprit.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.data import decode
from automl_tl.errors import CacheError, DataError, ImageError
from automl_tl.ipc import Child, parent_channel
from automl_tl.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    Result = int | str | DataError

_GROUP = 8
"""Images that travel together."""
_AHEAD = 3
"""Groups a thread that are under way or waiting."""
_LOOK_SECONDS = 1.0
_CRASHES = {f"killed by SIG{name}" for name in ("SEGV", "ABRT", "BUS", "FPE", "ILL")}


@dataclass(frozen=True, slots=True)
class Image:
    """An image to decode: its row in the arrays, its file and the SHA-256 that it should have."""

    row: int
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: by size, an existing ``.npy`` file of uint8 RGB; how; by how many threads."""

    arrays: Mapping[int, Path]
    resize: decode.Resize
    workers: int


def decode_all(
    images: Iterable[Image], target: Target, look: Callable[[], None]
) -> Generator[tuple[int, int | str], None, None]:
    """Decode images; yields row and shorter side in pixels, or why the image is broken.

    Rows come in the order in which they are done. Close the iterator when it is left early.

    Args:
        images: Taken when there is room.
        target: Where to.
        look: Called once a second while nothing is done; may raise.

    Raises:
        DataError: A file is no longer what it was.
        CacheError: The process was ended by something else than an image.
    """
    queue = iter(images)
    groups = iter(lambda: tuple(islice(queue, _GROUP)), ())
    waiting: dict[int, tuple[Image, ...]] = {}
    decoder = _Decoder(target, look)
    try:
        while True:
            try:
                while len(waiting) < _AHEAD * target.workers and (group := next(groups, None)):
                    waiting[group[0].row] = group
                    decoder.send(*group)
                if not waiting:
                    return
                results = decoder.receive()
                del waiting[results[0][0]]
                yield from results
            except EOFError:
                decoder.ended()
                suspects, waiting = waiting, {}
                for image in chain.from_iterable(suspects.values()):
                    yield image.row, _alone(decoder, image)
    finally:
        decoder.close()


def _alone(decoder: _Decoder, image: Image) -> int | str:
    try:
        decoder.send(image)
        return decoder.receive()[0][1]
    except EOFError:
        how = decoder.ended()
        if how not in _CRASHES:
            raise CacheError(
                f"The process that decodes images ended at {image.path} ({how}), which is not an "
                "image's doing: is there memory enough? Start again."
            ) from None
        return f"crashed its decoder ({how})"


class _Decoder:
    """The process, started when it is needed."""

    def __init__(self, target: Target, look: Callable[[], None]) -> None:
        self._target = target
        self._look = look
        self._child: Child | None = None

    def send(self, *group: Image) -> None:
        if self._child is None:
            self._child = Child("automl_tl.cache.decoding", log=Path(os.devnull))
            self._child.channel.send(self._target)
        self._child.channel.send(group)

    def receive(self) -> list[tuple[int, int | str]]:
        """Return the results of a group, whichever is done first."""
        assert self._child is not None, "something was sent before"
        while True:
            with suppress(TimeoutError):
                results: list[tuple[int, int | str]] = self._child.channel.receive(_LOOK_SECONDS)
                for _, result in results:
                    if isinstance(result, DataError):
                        raise result
                return results
            self._look()

    def ended(self) -> str:
        """Say how the process ended; another is started when it is needed."""
        assert self._child is not None, "it cannot have ended before it began"
        how = self._child.ending()
        self.close()
        return how

    def close(self) -> None:
        if self._child:
            self._child.kill()
            self._child.close()
            self._child = None


def _work(target: Target, send: Callable[[Any], None]) -> Callable[[tuple[Image, ...]], None]:
    arrays = {size: np.load(path, mmap_mode="r+") for size, path in target.arrays.items()}
    pages = {size: Pages(array) for size, array in arrays.items()}

    def fill(image: Image) -> Result:
        path = image.path
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != image.digest:
            return DataError(
                f"{path} changed while the data set was read: expected files that stay as they "
                "are; start again once nothing writes to them."
            )
        try:
            decoded = decode.decode_sizes(data, list(arrays), target.resize)
        except ImageError as error:
            return str(error)
        for size, pixels in zip(arrays, decoded.pixels, strict=True):
            arrays[size][image.row] = pixels
            pages[size].touch(pixels)
        return min(decoded.width, decoded.height)

    def filled(image: Image) -> Result:
        try:
            return fill(image)
        except Exception as error:  # one file must not keep the others waiting
            return f"cannot be read ({getattr(error, 'strerror', None) or error})"

    return lambda group: send([(image.row, filled(image)) for image in group])


def main() -> None:
    """Decode what the parent sends, until it closes the pipe."""
    channel = parent_channel()
    with suppress(EOFError), decode.quiet:
        target: Target = channel.receive()
        work = _work(target, channel.send)
        with ThreadPoolExecutor(target.workers) as pool:
            while True:
                pool.submit(work, channel.receive())


if __name__ == "__main__":
    main()
