"""What guards a search: the study's lock, and the signals that end it."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from automl_tl.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from automl_tl.study import StudyDirectory


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a study's lock: two supervisors of one study would reap each other's trials.

    Raises:
        StudyError: When another search holds it, or the directory cannot be written.
    """
    lock = FileLock(directory / "search.lock")
    try:
        lock.acquire(timeout=0.5)  # longer than ``at_work`` takes
    except Timeout:
        raise StudyError(
            f"Another search is at work on {directory}: wait for it or stop it."
        ) from None
    except OSError as error:
        raise StudyError(f"The study {directory} cannot be written ({error.strerror}).") from None
    try:
        yield
    finally:
        lock.release()


def at_work_on(study: StudyDirectory) -> AbstractContextManager[None]:
    """Hold a study's lock while at work on it; one in a database is there for several.

    Raises:
        StudyError: As ``alone``.
    """
    return alone(study.path) if study.config.storage is None else nullcontext()


def at_work(directory: Path) -> bool:
    """Whether a search is at work on a study; also when that cannot be told.

    Of a study in a database, which nobody locks, see ``sharing.at_work``.
    """
    lock = FileLock(directory / "search.lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


class Interrupts:
    """Counts SIGINT and SIGTERM while it is entered, in the main thread.

    Attributes:
        count: The first asks to stop cleanly, the second to stop at once.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last = float("-inf")
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupted(self, number: int, frame: object) -> None:
        # Some senders signal a process twice, for itself and for its group.
        if time.monotonic() - self._last > 1:
            self.count += 1
        self._last = time.monotonic()
