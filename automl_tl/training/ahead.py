"""Reading batches ahead, while the one before is computed with."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")

_DEPTH = 2
_LOOK_SECONDS = 0.1


def read_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield what an iterable yields, made in a thread of its own, at most two items ahead.

    What it raises is raised here, in its place. When this generator is closed, the thread ends.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(_DEPTH)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None = None) -> None:
        while not stop.is_set():
            try:
                ready.put((item, error), timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
