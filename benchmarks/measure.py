"""Runs a command and measures it: wall and CPU seconds, and the memory of all its processes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from benchmarks.results import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Look = Callable[[Sequence[psutil.Process]], None]

SAMPLE_SECONDS = 0.25
REAP_SECONDS = 10.0
"""How long processes that outlive the command are waited for."""
_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Run:
    """A command that ended well.

    Attributes:
        seconds: Wall time from start to end.
        cpu: CPU seconds of all its processes.
        rss: Peak of the sum of their resident bytes; pages that two share count twice.
        pss: The same, with shared pages divided among those that share them; 0 where the
            system does not say.
        out: Standard output.
    """

    seconds: float
    cpu: float
    rss: int
    pss: int
    out: str


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    memory: bool = False,
    look: Look | None = None,
) -> Run:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Where its output goes.
        environment: Of the process.
        memory: Also measure ``pss``, which costs the measured processes some time.
        look: Shown all its processes four times a second.

    Raises:
        BenchError: When it fails; the last lines that it said are in the message.
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    adopted = _adopt()
    with out.open("w") as stdout, err.open("w") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=dict(environment))
        watcher = _Watcher(process.pid, memory, look)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        counted = usage.ru_utime + usage.ru_stime + (_reap() if adopted else 0.0)
        watcher.stop()
    if process.returncode != 0:
        said = " / ".join(err.read_text(errors="replace").strip().splitlines()[-6:])
        raise BenchError(f"`{' '.join(command[:8])} ...` failed ({process.returncode}): {said}")
    cpu = counted if adopted else max(counted, watcher.cpu)
    return Run(seconds, cpu, watcher.rss, watcher.pss, out.read_text(errors="replace"))


def _adopt() -> bool:
    """Become the parent of descendants whose own parent is gone, where the system can (Linux).

    The kernel adds a process's CPU seconds to its parent's when that waits for it; those of a
    process that nobody waited for are known only to whoever inherits it.
    """
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0)


def _reap() -> float:
    """Wait for what was inherited; returns its CPU seconds."""
    total = 0.0
    patience = time.monotonic() + REAP_SECONDS
    while time.monotonic() < patience:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            total += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.02)
    return total


class _Watcher(threading.Thread):
    """Looks at a process and its descendants four times a second."""

    def __init__(self, pid: int, memory: bool, look: Look | None) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._pid = pid
        self._memory = memory
        self._ended = threading.Event()
        self._cpu: dict[int, float] = {}
        self.rss = 0
        self.pss = 0

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes that were seen, as of the last look."""
        return sum(self._cpu.values())

    def run(self) -> None:
        """Look until ``stop``."""
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
            except psutil.Error:
                continue
            if self._look:
                self._look(processes)
            rss = pss = 0
            for process in processes:
                try:
                    times = process.cpu_times()
                    rss += process.memory_info().rss
                    if self._memory:
                        pss += getattr(process.memory_full_info(), "pss", 0)
                except psutil.Error:
                    continue
                self._cpu[process.pid] = times.user + times.system
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def disk(folder: Path) -> int:
    """Return the bytes that the files below a folder take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
