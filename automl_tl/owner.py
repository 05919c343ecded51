"""Who runs a trial, recorded so that another process can tell whether it still does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Dead = Callable[[Mapping[str, Any] | None], bool]

OWNER = "owner"
"""The user attribute of a trial that holds it."""


def sign(search: str, worker: int) -> dict[str, Any]:
    """Say who runs a trial: machine, process and when it began; search and worker."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "search": search,
        "worker": worker,
    }


def alive(who: Mapping[str, Any]) -> bool:
    """Whether an owner still runs. One on another machine counts as running."""
    if (who.get("host"), who.get("machine")) != (socket.gethostname(), _machine()):
        return True
    try:
        return _started(int(who["pid"])) == who.get("started")
    except (KeyError, TypeError, ValueError):
        return False


def anybody(who: Mapping[str, Any] | None) -> bool:
    """Whoever it is, signed or not: nobody can be running a trial of this study."""
    return True


def dead_here(who: Mapping[str, Any] | None) -> bool:
    """Whether an owner ran on this machine and does no longer."""
    return who is not None and not alive(who)


def of(search: str, worker: int | None = None) -> Dead:
    """Return what recognises the owners of one search, or of one of its workers."""

    def is_one(who: Mapping[str, Any] | None) -> bool:
        if who is None or who.get("search") != search:
            return False
        return worker is None or who.get("worker") == worker

    return is_one


def _machine() -> str | None:
    """Identify this boot of this machine and this container, which may share its host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _started(pid: int) -> float | None:
    """Return when a process began, by a clock that is never set; None when there is none."""
    import psutil

    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return float(file.read().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        pass  # there is no such process, or the system is no Linux
    try:
        return round(float(psutil.Process(pid).create_time()), 1)
    except psutil.Error:
        return None
