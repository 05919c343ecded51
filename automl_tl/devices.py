"""Which devices the workers of a search get."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from automl_tl.errors import AutoMLError
from automl_tl.host import BackendHost
from automl_tl.units import are, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any


def check_device(device: str, backends: Iterable[str], host: Callable[[str], BackendHost]) -> None:
    """Check that a device which a person named is one of every backend's.

    Args:
        device: ``auto`` and ``cpu`` are there always, and cost nothing.
        backends: Their names.
        host: Returns the process of a backend, made for that device.

    Raises:
        UsageError: When it is not.
    """
    if device not in {"auto", "cpu"}:
        for name in sorted(set(backends)):
            host(name).devices()


def gpus_for(
    workers: int | None,
    per_device: int,
    backends: Iterable[str],
    log: Path,
    warn: Callable[[str], None],
) -> tuple[str | None, ...]:
    """Share this machine's GPUs among the workers of a search.

    A worker that sees one GPU only takes it as its best device, whichever framework it uses, and
    the CPU where a framework cannot use it.

    Args:
        workers: How many workers; None for ``per_device`` on every GPU, or on the CPU.
        per_device: Used without ``workers``.
        backends: Names of the backends that are searched.
        log: File for what they print.
        warn: Receives the sentence for a person whose GPUs cannot be used.

    Returns:
        What ``CUDA_VISIBLE_DEVICES`` should be for every worker; None leaves it as it is.
    """
    gpus = visible_gpus()
    names = sorted(set(backends))
    if len(gpus) > 1 and not any(_has_cuda(name, log) for name in names):
        warn(
            f"{plural(len(gpus), 'GPU')} {are(len(gpus))} there, but {' and '.join(names)} can use "
            "none of them, so the search runs on the CPU: install a build with CUDA."
        )
        gpus = ()
    count = workers or per_device * max(1, len(gpus))
    return tuple(gpus[index % len(gpus)] if len(gpus) > 1 else None for index in range(count))


class Room:
    """How many workers may train at a time, on one device by the memory that trials took there.

    What no trial has taken yet is not known: the first ones all begin, and where they do not fit
    together, the backends divide their batches.

    Args:
        gpus: As ``gpus_for`` returned them; workers with the same one share a device. None at all:
            the engine says who shares what, and every worker may train.
        one_first: Whether one trial stores what all others read: until one has finished, a single
            worker trains, or several would start a framework for nothing.
    """

    def __init__(self, gpus: Sequence[str | None], *, one_first: bool = False) -> None:
        self._gpus = gpus
        self._one_first = one_first
        self._fit: int | None = None

    def learn(self, facts: Mapping[str, Any]) -> str | None:
        """Learn from what is told of a finished trial.

        Returns:
            What a person should know when fewer workers train from now on.
        """
        self._one_first = False
        taken, there = facts.get("device_memory") or 0, facts.get("device_total") or 0
        if not taken or not there or not self._gpus:
            return None
        sharing = max(self._gpus.count(gpu) for gpu in self._gpus)
        before = sharing if self._fit is None else self._fit
        fit = max(1, there // taken)
        if fit >= before:
            return None
        self._fit = fit
        return (
            f"A trial took {taken / 2**30:.1f} of the device's {there / 2**30:.1f} GiB: "
            f"{fit} of its {sharing} workers train at a time from now on."
        )

    def left(self, worker: int, busy: Iterable[int]) -> bool:
        """Whether a worker may begin while others are busy."""
        others = [other for other in busy if other != worker]
        if self._one_first and others:
            return False
        if self._fit is None:
            return True
        return sum(self._gpus[other] == self._gpus[worker] for other in others) < self._fit


def visible_gpus() -> tuple[str, ...]:
    """Return the NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        return tuple(name for name in names if name not in {"", "-1"})
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        )
        lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
        return tuple(str(index) for index in range(len(lines)))
    return ()


def _has_cuda(backend: str, log: Path) -> bool:
    """Ask a backend, which imports its framework; one that is broken has nothing."""
    try:
        with BackendHost(backend, log=log) as host:
            return any(device.startswith("cuda") for device in host.devices())
    except AutoMLError:
        return False
