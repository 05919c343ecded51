"""What a process may use of its machine: CPUs and memory, no more than its container has."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """Main memory, in bytes.

    Attributes:
        total: What the machine has, or the container may use.
        available: What can be had of it without swapping.
    """

    total: int
    available: int


def available_cpus() -> int:
    """Return how many CPUs this process may use, one at least.

    That is its affinity, which ``taskset``, SLURM and a container's CPU set narrow, and no more
    than its control groups' quota, as ``docker run --cpus`` and Kubernetes set it: more threads
    than that only take turns.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    for group in _groups("cpu"):
        quota, period = _quota(group)
        if quota > 0 and period > 0:
            cpus = min(cpus, math.ceil(quota / period))
    return max(1, cpus)


def memory() -> Memory:
    """Return the memory of the machine, or of the narrowest control group that is less.

    A group counts files in the system's cache as used; those that were not read lately can go, and
    are available here as on the machine.
    """
    import psutil

    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for group in _groups("memory"):
        limit = _number(group, "memory.max", "memory.limit_in_bytes")
        used = _number(group, "memory.current", "memory.usage_in_bytes")
        if limit is None or used is None:
            continue
        total = min(total, limit)
        available = min(available, max(0, limit - used + _idle(group)))
    return Memory(total, available)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and those above it, of either version.

    In a container, the group's name may be the host's; its own files then lie at the root.
    """
    for line in _text(_MINE).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controller if controllers else _GROUPS
        group = root / name.lstrip("/")
        yield group
        yield from (above for above in group.parents if above.is_relative_to(root))


def _quota(group: Path) -> tuple[int, int]:
    """Return the microseconds of CPU time that a group has in so many; zero for no bound."""
    words = _text(group / "cpu.max").split()  # "max 100000", or "200000 100000"
    if len(words) == 2 and words[0].isdecimal():
        return int(words[0]), int(words[1])
    return _number(group, "cpu.cfs_quota_us") or 0, _number(group, "cpu.cfs_period_us") or 0


def _idle(group: Path) -> int:
    """Return the bytes of files in memory that can go."""
    rows = dict(row.split() for row in _text(group / "memory.stat").splitlines())
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))


def _number(group: Path, *names: str) -> int | None:
    """Return the first of a group's files that holds a number; "max" and -1 are none."""
    for name in names:
        text = _text(group / name).strip()
        if text.isdecimal():
            return int(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
