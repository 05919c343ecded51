"""What is being filled, and what was when its process was killed.

A folder of ``ROOT/partial`` belongs to whoever holds the lock of the same name.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from filelock import BaseFileLock


def lock_of(root: Path, name: str) -> BaseFileLock:
    """Return the lock that is held while the folder or the fact of a name is made."""
    from filelock import FileLock

    return FileLock(root / "locks" / f"{name}.lock")


def allocate(folder: Path, shape: tuple[int, ...], dtype: str) -> Path:
    """Create an array to fill in a new folder; raises ``OSError`` where there is no room."""
    path = folder / "data.npy"
    try:
        folder.mkdir(parents=True)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        del array
        # Without blocks of its own, a full disk would end the process with SIGBUS.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def sweep(root: Path) -> None:
    """Delete the folders that nobody fills any more."""
    from filelock import Timeout

    for folder in (root / "partial").glob("*"):
        with suppress(Timeout), lock_of(root, folder.name).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def count(root: Path) -> tuple[int, int]:
    """Return how many folders there are, and their bytes."""
    folders = list((root / "partial").glob("*"))
    size = 0
    for folder in folders:
        for path in folder.glob("*"):
            with suppress(OSError):  # it has become an entry
                size += path.stat().st_size
    return len(folders), size
