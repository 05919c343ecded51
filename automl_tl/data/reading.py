"""Reads many files of a data set, in threads and without holding them all."""

from __future__ import annotations

import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from automl_tl.errors import ImageError
from automl_tl.machine import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future
    from pathlib import Path

MAX_FILE_BYTES = 10**9

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def read_image_file(path: Path) -> bytes:
    """Read a file that should be an image.

    Raises:
        ImageError: It cannot be read, is no regular file or is larger than ``MAX_FILE_BYTES``.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"larger than {MAX_FILE_BYTES // 10**6} MB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read ({reason})") from None


def in_threads(
    function: Callable[[_In], _Out], items: Iterable[_In], workers: int | None = None
) -> Generator[_Out, None, None]:
    """Yield ``function(item)`` for every item, in order.

    At most four items a worker are under way or waiting to be taken. Close the iterator when it is
    left early: that waits for the running calls and starts no other.

    Args:
        function: Called in threads; what it raises is raised here.
        items: Taken one by one.
        workers: Number of threads; the CPUs that this process may use by default.
    """
    workers = workers or available_cpus()
    with ThreadPoolExecutor(workers, thread_name_prefix="automl-tl-read") as pool:
        waiting: deque[Future[_Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
