"""Optuna's journal file, made to survive a ``kill -9`` and a bad disk, and to cost little.

Its own lock files would be left behind by a killed process, and half a line at its end would spoil
it for good; our lock cures both. Every line ends with a checksum of the rest, in a field that
Optuna does not heed: most flipped bytes leave valid JSON. Lines without one, of older versions or
of Optuna itself, are believed.
"""

from __future__ import annotations

import json
import os
import re
import threading
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from automl_tl.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PARAMETER = 5
"""Optuna's ``JournalOperation.SET_TRIAL_PARAM``; a test compares them."""
_CHECK = "crc32"
_CHECKED = re.compile(rb'(.+),"crc32":"([0-9a-f]{8})"}\n')


class JournalLock(BaseJournalFileLock):
    """An advisory lock that the kernel frees when its owner dies.

    Whoever takes it finds the journal whole: half a line left by a killed writer is cut off, which
    is safe because no other writer can be at work.

    Args:
        journal: The journal file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(f"{journal}.lock", thread_local=False)
        self._threads = threading.Lock()

    def acquire(self) -> bool:
        """Wait for the lock and mend the journal."""
        self._threads.acquire()
        try:
            self._lock.acquire()
            _cut_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Free the lock."""
        self._lock.release()
        self._threads.release()


class Journal(BaseJournalBackend):
    """Optuna's journal file; a trial's parameters are written together.

    Optuna writes and syncs a line for every parameter, which took longer than training a head.
    Here they wait for whatever is written or read next; a kill in between loses them together with
    the trial that was about to start.

    Args:
        path: The journal file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = JournalFileBackend(str(path), lock_obj=JournalLock(path))
        self._waiting: list[dict[str, Any]] = []
        self._unread = False

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, parameters at the next occasion.

        Raises:
            StudyError: When they cannot be written.
        """
        self._waiting += logs
        self._unread = all(log["op_code"] == _PARAMETER for log in logs)
        if not self._unread:
            self._flush()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Read records; just after a parameter, which Optuna knows anyway, there are none."""
        if self._unread:
            self._unread = False
            return ()
        self._flush()
        return self._file.read_logs(log_number_from)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._file.append_logs([_with_check(log) for log in waiting])
        except OSError as error:  # what was written of it, whoever writes next cuts off
            raise StudyError(
                f"{self._path} cannot be written ({error.strerror or error}): free some space or "
                "make it writable, and `automl-tl resume` goes on; no finished trial is lost."
            ) from None


def check(journal: Path) -> None:
    """Hold every line against its checksum.

    Half a line at the end is no damage: a killed writer left it. Optuna reads over a last line that
    it cannot read.

    Raises:
        StudyError: When a byte of one was changed.
    """
    number, line = 0, b""
    with suppress(OSError), journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            found = _CHECKED.fullmatch(line)
            if found and zlib.crc32(b"}", zlib.crc32(found[1])) != int(found[2], 16):
                raise StudyError(_damaged(journal, number))
    whole = line.endswith(b"\n")
    if (_CHECKED.fullmatch(line[:-1] + b"\n") and not whole) or (whole and not _is_json(line)):
        raise StudyError(_damaged(journal, number))


def damage(journal: Path) -> str | None:
    """Name the line of a journal that cannot be read, and the way out; None when all can be."""
    with suppress(OSError):
        for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
            if not _is_json(line):
                return _damaged(journal, number)
    return None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _damaged(journal: Path, number: int) -> str:
    return (
        f"Line {number} of {journal} is damaged: keep a copy of the file, delete that line, and "
        "the study opens again."
    )


def _with_check(log: dict[str, Any]) -> dict[str, Any]:
    """Add the checksum of a record as Optuna writes it."""
    line = json.dumps(log, separators=(",", ":")).encode()
    return {**log, _CHECK: f"{zlib.crc32(line):08x}"}


def _cut_torn_line(journal: Path) -> None:
    try:
        with journal.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end == 0:
                return
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return
            start = max(0, end - (1 << 24))
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)
    except FileNotFoundError:
        return
