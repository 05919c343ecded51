"""Downloads one file: aside, taken up again where a connection broke, renamed when it is whole."""

from __future__ import annotations

import http.client
import urllib.error
from typing import IO, TYPE_CHECKING

from automl_tl.downloads import ask

if TYPE_CHECKING:
    from pathlib import Path

_ATTEMPTS = 3
_BLOCK = 1 << 18
_TIMEOUT = 30.0
"""Seconds without a byte."""


def fetch(url: str, path: Path) -> None:
    """Download a file to ``path``, over ``<name>.partial`` beside it.

    A connection that breaks is made again, twice, and goes on where it broke if the server says by
    a strong ETag that the file is still the same. Otherwise, and after a process that was killed,
    everything begins anew.
    Only one process at a time may fetch to a path.

    Args:
        url: ``http://`` or ``https://``.
        path: The file; its folder must exist.

    Raises:
        OSError: The server cannot be reached or refuses, or the file cannot be written.
    """
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("wb") as file:
            _receive(url, file)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """Return why a download failed, in a few words."""
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner)


def _receive(url: str, file: IO[bytes]) -> None:
    validator = ""
    for attempt in range(_ATTEMPTS):
        try:
            if not validator:
                file.seek(0)
                file.truncate()
            headers = {}
            if done := file.tell():
                headers = {"Range": f"bytes={done}-", "If-Range": validator}
            with ask(url, "GET", _TIMEOUT, headers) as answer:
                validator = _strong(answer.headers.get("ETag", ""))
                _append(answer, file)
            return
        except urllib.error.HTTPError:
            raise
        except http.client.HTTPException as error:
            failure = OSError(f"{type(error).__name__}: {error}")
        except OSError as error:
            failure = error
        if attempt == _ATTEMPTS - 1 or not file.tell():
            raise failure


def _append(answer: http.client.HTTPResponse, file: IO[bytes]) -> None:
    """Write an answer's body to a file's end, or over all of it when it is the whole file."""
    if answer.status != http.client.PARTIAL_CONTENT:
        file.seek(0)
        file.truncate()
    length = answer.headers.get("Content-Length")
    expected = file.tell() + int(length) if length else None
    while block := answer.read1(_BLOCK):
        file.write(block)
        file.flush()  # how large the file is tells how far the download is
    if expected is not None and file.tell() != expected:
        raise ConnectionError(f"the connection broke after {file.tell():,} of {expected:,} bytes")


def _strong(tag: str) -> str:
    return "" if tag.startswith("W/") else tag
