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
    from collections.abc import Callable, Iterable
    from pathlib import Path


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
    workers: int | None, backends: Iterable[str], log: Path, warn: Callable[[str], None]
) -> tuple[str | None, ...]:
    """Share this machine's GPUs among the workers of a search.

    A worker that sees one GPU only takes it as its best device, whichever framework it uses, and
    the CPU where a framework cannot use it.

    Args:
        workers: How many workers; None for one a GPU.
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
    count = workers or max(1, len(gpus))
    return tuple(gpus[index % len(gpus)] if len(gpus) > 1 else None for index in range(count))


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
