"""Files from the internet: written aside, checked, renamed, and given up when the time is up."""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
import time
import urllib.request
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError

from automl_tl.files import left_aside, written_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BufferedRandom
    from pathlib import Path

    from automl_tl.stages import Stage

    Result = TypeVar("Result")
    Measure = Callable[[], tuple[str, int, int] | None]

EVERY = 0.25
"""Seconds between two looks at a download."""
_ATTEMPTS = 3
_PIECE = 2**16
_TIMEOUT = 30.0
"""Seconds without a byte."""
_GRACE = 1.0
"""Seconds that a download has to clean up once it is given up."""
_ABANDONED = 3600.0
"""Seconds without a write after which whoever downloads a file was killed."""


def from_url(
    url: str, path: Path, checksum: tuple[str, str] | None, stage: Stage, until: float
) -> Path:
    """Download a file as ``fetch`` does, telling how far it is, for as long as there is time.

    Args:
        url: As for ``fetch``.
        path: As for ``fetch``.
        checksum: As for ``fetch``.
        stage: Told how many bytes are here.
        until: ``time.monotonic()`` at which it is given up.

    Raises:
        OSError: As for ``fetch``; ``TimeoutError`` when the time was up.
    """
    here = [0, 0]

    def work(over: threading.Event) -> Path:
        return fetch(url, path, checksum, here, over)

    def measure() -> tuple[str, int, int]:
        return f"downloading {path.name}", here[0], here[1]

    return in_background(work, measure, stage, until)


def fetch(
    url: str,
    path: Path,
    checksum: tuple[str, str] | None = None,
    here: list[int] | None = None,
    over: threading.Event | None = None,
) -> Path:
    """Download a file; what is at ``path`` is always whole and checked.

    A connection that breaks is made again, twice, and goes on where it broke if the server says by
    a strong ETag that the file is still the same. Otherwise, and after a process that was killed,
    everything begins anew.

    Args:
        url: Where it comes from.
        path: Where it goes; its folder is made.
        checksum: Name in ``hashlib`` and expected hexadecimal digits, of which the first are
            enough; None for a file that was published without.
        here: Becomes how many bytes are here, and of how many, 0 when nobody knows.
        over: It is given up once this is set.

    Raises:
        OSError: When it cannot be had, or is not what the checksum says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    with written_aside(path) as aside, aside.open("w+b") as file:
        _receive(url, file, [0, 0] if here is None else here, over or threading.Event())
        if checksum:
            _check(file, *checksum)
    return path


def _sweep(path: Path) -> None:
    """Delete what killed processes left of a file."""
    for left in left_aside(path):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def in_background(
    work: Callable[[threading.Event], Result], measure: Measure, stage: Stage, until: float
) -> Result:
    """Run a download in a thread, because looking up a name can take longer than anybody waits.

    Args:
        work: Downloads; should end soon after its event is set.
        measure: Returns what is being done, how many bytes are here, and of how many, 0 when nobody
            knows; None while there is nothing to tell.
        stage: Told that, and 1 of 1 at the end of each.
        until: ``time.monotonic()`` at which it is given up.

    Raises:
        TimeoutError: When the time is up.
    """
    results: list[Result] = []
    errors: list[Exception] = []
    over = threading.Event()

    def run() -> None:
        try:
            results.append(work(over))
        except Exception as error:  # it is raised below, in the thread that waits
            errors.append(error)

    told = ""

    def tell(found: tuple[str, int, int] | None) -> None:
        nonlocal told
        what = found[0] if found else ""
        if told and told != what:
            stage(told, 1, 1, "bytes")
        told = what
        if found:
            stage(*found, "bytes")

    thread = threading.Thread(target=run, daemon=True)
    tell(measure())
    thread.start()
    try:
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            thread.join(min(EVERY, left))
            tell(measure())
    finally:
        over.set()
        thread.join(_GRACE)
        tell(None)
    if results:
        return results[0]
    if errors and time.monotonic() < until:
        raise errors[0]
    raise TimeoutError("the time is up")


def reason(error: BaseException) -> str:
    """Return why something cannot be had, in one line without a full stop."""
    inner = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
    text = getattr(inner, "strerror", None) or str(inner).strip() or type(error).__name__
    return str(text).splitlines()[0][:300].rstrip(".")


def ask(
    url: str, method: str, timeout: float, headers: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """Send a request, through the proxies that the environment names now; raises ``OSError``."""
    headers = {"User-Agent": "automl-tl", **headers}
    request = urllib.request.Request(url, method=method, headers=headers)
    return urllib.request.build_opener().open(request, timeout=timeout)


def _receive(url: str, file: BufferedRandom, here: list[int], over: threading.Event) -> None:
    """Write a file, over as many connections as it takes, at most three."""
    validator = ""
    for attempt in range(_ATTEMPTS):
        try:
            if not validator:
                _empty(file)
            headers = {}
            if done := file.tell():
                headers = {"Range": f"bytes={done}-", "If-Range": validator}
            with ask(url, "GET", _TIMEOUT, headers) as answer:
                validator = _strong(answer.headers.get("ETag", ""))
                _append(answer, file, here, over)
            return
        except HTTPError:
            raise
        except http.client.HTTPException as error:
            failure = OSError(f"{type(error).__name__}: {error}")
        except OSError as error:
            failure = error
        if over.is_set() or attempt == _ATTEMPTS - 1 or not file.tell():
            raise failure


def _append(answer: Any, file: BufferedRandom, here: list[int], over: threading.Event) -> None:
    """Write an answer's body to a file's end, or over all of it when it is the whole file."""
    if answer.status != http.client.PARTIAL_CONTENT:
        _empty(file)
    length = _length(", ".join(answer.headers.get_all("Content-Length", ())))
    here[:] = file.tell(), file.tell() + length if length else 0
    while piece := answer.read1(_PIECE):
        if over.is_set():
            raise TimeoutError("the time is up")
        file.write(piece)
        file.flush()  # how large the file is tells how far the download is
        here[0] = file.tell()
    if length and here[0] != here[1]:
        raise ConnectionError(f"the connection broke after {here[0]:,} of {here[1]:,} bytes")


def _length(header: str) -> int | None:
    """Return a ``Content-Length``, which proxies may repeat, as a number; None if it is none."""
    number = re.fullmatch(r"\s*([0-9]{1,18})(\s*,\s*\1)*\s*", header)
    return int(number[1]) if number else None


def _empty(file: BufferedRandom) -> None:
    file.seek(0)
    file.truncate()


def _strong(tag: str) -> str:
    return "" if tag.startswith("W/") else tag


def _check(file: BufferedRandom, algorithm: str, expected: str) -> None:
    file.seek(0)
    digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    found = digest.hexdigest()[: len(expected)]
    if found != expected:
        raise OSError(
            f"expected a file with {algorithm.upper()} {expected}, got one with {found}, which is "
            "not kept"
        )
