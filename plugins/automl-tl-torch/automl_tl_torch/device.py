"""Devices: which there are, and the settings that keep stored numbers exact."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from automl_tl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


_CONTEXT_BYTES = 512 * 2**20
"""What a process takes on a CUDA device beside its tensors: its context and kernels."""


def devices() -> list[str]:
    """Devices of this machine, best first: ``cuda:0`` and up, ``mps``, ``cpu``."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def choose(name: str) -> torch.device:
    """Return the device of a name: ``auto`` is the best one, ``cuda`` the first CUDA device.

    Raises:
        UsageError: When this machine has no such device.
    """
    found = devices()
    wanted = {"auto": found[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in found:
        raise UsageError(
            f"--device {name}: expected auto or one of the devices of this machine "
            f"({', '.join(found)})."
        )
    return torch.device(wanted)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout in which convolutions are fastest: channels last on CPU and CUDA."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def free_memory(device: torch.device) -> int:
    """Return the bytes that a batch may take there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return 512 * 2**20


def begin_measuring(device: torch.device) -> None:
    """Begin to measure what ``memory_taken`` returns."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_taken(device: torch.device) -> tuple[int, int]:
    """Return the most bytes that this process held there, and the bytes that there are.

    Both are 0 where nothing is measured.
    """
    if device.type != "cuda":
        return 0, 0
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) + _CONTEXT_BYTES, total


def give_back(device: torch.device) -> None:
    """Let other processes have the memory that this one holds and does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in full float32: no TF32 in CUDA's convolutions and matrix products.

    Stored activations feed every later trial, and TF32 keeps 10 bits of the mantissa only.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        # Trying out algorithms takes seconds a shape, and most arrays are a few batches.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
