"""Which devices the workers of a search get, found out without importing a framework."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress


def devices_for(workers: int | None, device: str) -> tuple[str, ...]:
    """Return a device for every worker: one a GPU, or one in all."""
    gpus = gpu_count() if device == "auto" else 0
    count = workers or max(1, gpus)
    if gpus > 1:
        return tuple(f"cuda:{index % gpus}" for index in range(count))
    return (device,) * count


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in {"", "-1"}])
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        )
        return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return 0
