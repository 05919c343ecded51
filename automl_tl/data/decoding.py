"""Looks at image files in a process of its own, so that a decoder's crash costs an image.

The libraries below Pillow are C, and a file may be made to crash them. The images that were under
way then are looked at once more, one at a time: the one that ends the process again is the culprit.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from automl_tl.errors import DataError, ImageError
from automl_tl.ipc import Child, parent_channel
from automl_tl.machine import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Self

_AHEAD = 24
"""Images a thread that are under way or waiting."""
_MOST_THREADS = 8
"""For pixels that come back: beyond, they wait for memory and for the model."""
_LOOK_SECONDS = 1.0
_CRASHES = {f"killed by SIG{name}" for name in ("SEGV", "ABRT", "BUS", "FPE", "ILL")}


class Job(Protocol):
    """What to do with every image. It travels to the process, as images and results do."""

    def start(self) -> Callable[[Any], Any]:
        """Return, in the process, what is called with an image, in any thread."""


class Decoder:
    """A process that looks at images. A context manager.

    Args:
        job: What to do with each; what that raises becomes a reason, a text.
        workers: Number of threads; the CPUs that this process may use by default.
        group: Images that travel together, and are looked at one after the other.
    """

    def __init__(self, job: Job, workers: int | None = None, group: int = 1) -> None:
        self._job = job
        self._workers = workers or available_cpus()
        self._group = group
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Child:
        """Start the process, if that was not done yet."""
        if self._child is None:
            self._child = Child("automl_tl.data.decoding", log=Path(os.devnull))
            with suppress(EOFError):  # whoever sends the first image is told
                self._child.channel.send((self._job, self._workers))
        return self._child

    def close(self) -> None:
        """End the process; it is started again when there is something to do."""
        if self._child:
            self._child.kill()
            self._child.close()
            self._child = None

    def results(
        self, images: Iterable[Any], look: Callable[[], None] = lambda: None
    ) -> Generator[Any, None, None]:
        """Yield what the job makes of each image, in order, or why it is broken.

        Close the iterator when it is left early.

        Args:
            images: What the job takes; taken when there is room.
            look: Called once a second while nothing is done; may raise.

        Raises:
            DataError: The process was ended by something else than an image.
        """
        most = max(1, _AHEAD // self._group) * self._workers
        queue = iter(images)
        groups = iter(lambda: tuple(islice(queue, self._group)), ())
        waiting: deque[tuple[Any, ...]] = deque()
        done: dict[int, list[Any]] = {}
        first = 0
        try:
            while True:
                try:
                    while len(waiting) < most and (group := next(groups, None)):
                        waiting.append(group)
                        self.start().channel.send((first + len(waiting) - 1, group))
                    while waiting and first not in done:
                        number, results = self._receive(look)
                        done[number] = results
                except EOFError:
                    self._ended()
                    while waiting:
                        group = waiting.popleft()
                        whole = done.pop(first, None)
                        first += 1
                        yield from whole or (self._alone(image, look) for image in group)
                    continue
                if not waiting:
                    return
                waiting.popleft()
                first += 1
                yield from done.pop(first - 1)
        finally:
            if waiting:  # what is under way would come in the midst of the next
                self.close()

    def _alone(self, image: Any, look: Callable[[], None]) -> Any:
        try:
            self.start().channel.send((0, (image,)))
            return self._receive(look)[1][0]
        except EOFError:
            how = self._ended()
            if how not in _CRASHES:
                raise DataError(
                    f"The process that decodes images ended at {image} ({how}), which is not an "
                    "image's doing: is there memory enough? Start again."
                ) from None
            return f"crashed its decoder ({how})"

    def _receive(self, look: Callable[[], None]) -> tuple[int, list[Any]]:
        """Return the results of a group, whichever is done first."""
        channel = self.start().channel
        while True:
            with suppress(TimeoutError):
                found: tuple[int, list[Any]] = channel.receive(_LOOK_SECONDS)
                return found
            look()

    def _ended(self) -> str:
        """Say how the process ended."""
        how = self.start().ending()
        self.close()
        return how


class Decoders:
    """Processes for one job, one for each that asks at the same time.

    A context manager, which starts the first one ahead.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._idle: list[Decoder] = []
        self._all: list[Decoder] = []

    @contextmanager
    def borrow(self) -> Iterator[Decoder]:
        """Give one away, until the context ends."""
        try:
            decoder = self._idle.pop()
        except IndexError:  # all are at work
            decoder = Decoder(self._job, min(available_cpus(), _MOST_THREADS))
            self._all.append(decoder)
        try:
            yield decoder
        finally:
            self._idle.append(decoder)

    def __enter__(self) -> Self:
        with self.borrow() as decoder:
            decoder.start()
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self._all:
            decoder.close()


def main() -> None:
    """Look at what the parent sends, until it closes the pipe."""
    from automl_tl.data import decode

    channel = parent_channel()
    with suppress(EOFError), decode.quiet:
        job, workers = channel.receive()
        look = job.start()

        def work(number: int, group: tuple[Any, ...]) -> None:
            channel.send((number, [_result(look, image) for image in group]))

        with ThreadPoolExecutor(workers) as pool:
            while True:
                pool.submit(work, *channel.receive())


def _result(look: Callable[[Any], Any], image: Any) -> Any:
    try:
        return look(image)
    except ImageError as error:
        return str(error)
    except Exception as error:  # one file must not keep the others waiting
        reason = getattr(error, "strerror", None) or error
        return f"cannot be read ({str(reason) or type(error).__name__})"


if __name__ == "__main__":
    main()
