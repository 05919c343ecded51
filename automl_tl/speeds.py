"""How fast this machine's stores are: measured once, and kept in the cache."""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.cache.store import Store

_BYTES = 64 << 20
_ROW = 1 << 16
_SECONDS = 1e-4


def power_of_two(value: float) -> float:
    """Round a speed, so that a plan does not follow the noise of a stop-watch."""
    return 2.0 ** round(math.log2(max(value, 1.0)))


def store_speeds(store: Store) -> dict[str, float]:
    """Return ``memory``, ``read`` and ``write`` of this machine in bytes a second.

    64 MiB are written to the cache's disk, read back past the system's page cache where that can
    be had, and gathered row by row in RAM: a fifth of a second on an ordinary disk, once.
    """
    key = {"host": socket.gethostname(), "version": 1}
    found: dict[str, float] = store.remember("speeds", key, lambda: _measure(store.root))
    return found


def _measure(root: Path) -> dict[str, Any]:
    block = np.arange(_BYTES // 8, dtype=np.int64).view(np.uint8).reshape(-1, _ROW)
    path = root / f".speed-{os.getpid()}"
    speeds = {"memory": 2.0**33, "read": 2.0**29, "write": 2.0**28}
    order = np.random.default_rng(0).permutation(len(block))
    started = time.perf_counter()
    block.take(order, axis=0)
    speeds["memory"] = _rate(started)
    with suppress(OSError):
        started = time.perf_counter()
        with path.open("wb") as file:
            file.write(block.tobytes())
            file.flush()
            os.fsync(file.fileno())
            speeds["write"] = _rate(started)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        path.read_bytes()
        speeds["read"] = _rate(started)
    path.unlink(missing_ok=True)
    return speeds


def _rate(started: float) -> float:
    return power_of_two(_BYTES / max(_SECONDS, time.perf_counter() - started))
