"""Files from the internet: written aside, checked, renamed, and given up when the time is up."""

from __future__ import annotations

import hashlib
import threading
import time
import urllib.request
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError

from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from automl_tl.stages import Stage

    Result = TypeVar("Result")
    Measure = Callable[[], tuple[int, int]]

EVERY = 0.25
"""Seconds between two looks at a download."""
_TIMEOUT = 30.0
_PIECE = 2**16
_GRACE = 1.0
"""Seconds that a download has to clean up once it is given up."""


def from_url(
    url: str, path: Path, checksum: tuple[str, str] | None, stage: Stage, until: float
) -> Path:
    """Download a file; what is at ``path`` is always whole and checked.

    Args:
        url: Where it comes from.
        path: Where it goes; its folder is made.
        checksum: Name in ``hashlib`` and expected hexadecimal digits, of which the first are
            enough; None for a file that was published without.
        stage: Told how many bytes are here.
        until: ``time.monotonic()`` at which it is given up.

    Raises:
        OSError: When it cannot be had, of which ``TimeoutError`` says that the time was up.
        WeightsError: When it is not what the checksum says, in words that fit into a sentence.
    """
    here = [0, 0]

    def work(over: threading.Event) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            digest = _copy(url, aside, checksum[0] if checksum else "sha256", here, over)
            if checksum and not digest.startswith(checksum[1]):
                raise WeightsError(
                    f"expected a file with {checksum[0].upper()} {checksum[1]}, got one with "
                    f"{digest[: len(checksum[1])]}, which is not kept"
                )
            return aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    return in_background(work, lambda: (here[0], here[1]), path.name, stage, until)


def in_background(
    work: Callable[[threading.Event], Result],
    measure: Measure,
    name: str,
    stage: Stage,
    until: float,
) -> Result:
    """Run a download in a thread, because looking up a name can take longer than anybody waits.

    Args:
        work: Downloads; ends soon after its event is set.
        measure: Returns how many bytes are here, and of how many, 0 when nobody knows.
        name: Of the file, for ``stage``.
        stage: Told how far it is, and 1 of 1 at the end.
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

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    what = f"downloading {name}"
    try:
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            thread.join(min(EVERY, left))
            stage(what, *measure(), "bytes")
    finally:
        over.set()
        thread.join(_GRACE)
        stage(what, 1, 1, "bytes")
    if results:
        return results[0]
    if errors and time.monotonic() < until:
        raise errors[0]
    raise TimeoutError("the time is up")


def reason(error: BaseException) -> str:
    """Return why something cannot be had, in one line without a full stop."""
    named = None if isinstance(error, HTTPError) else getattr(error, "reason", None)
    text = named or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0][:300].rstrip(".")


def ask(
    url: str, method: str, timeout: float, headers: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """Send a request, through the proxies that the environment names now; raises ``OSError``."""
    headers = {"User-Agent": "automl-tl", **headers}
    request = urllib.request.Request(url, method=method, headers=headers)
    return urllib.request.build_opener().open(request, timeout=timeout)


def _copy(url: str, aside: Path, algorithm: str, here: list[int], over: threading.Event) -> str:
    """Write a file, telling in ``here`` how far it is; returns its checksum."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with ask(url, "GET", _TIMEOUT) as answer, aside.open("wb") as file:
        here[1] = int(answer.headers.get("Content-Length") or 0)
        while piece := answer.read1(_PIECE):
            if over.is_set():
                raise TimeoutError("the time is up")
            file.write(piece)
            digest.update(piece)
            here[0] += len(piece)
    if here[0] < here[1]:
        raise ConnectionError(f"it ended after {here[0]} of {here[1]} bytes")
    return digest.hexdigest()
