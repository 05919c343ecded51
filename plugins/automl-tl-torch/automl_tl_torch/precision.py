"""Mixed precision: what a device computes a network's layers in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def choose(device: torch.device) -> torch.dtype:
    """Return bfloat16 on CUDA devices that have it, float16 on older ones, float32 elsewhere."""
    if device.type != "cuda":
        return torch.float32
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run what lies inside in mixed precision; float32 changes nothing."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def name(dtype: torch.dtype) -> str:
    """Return ``float32``, ``bfloat16`` or ``float16``."""
    return str(dtype).removeprefix("torch.")
