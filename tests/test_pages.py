from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from automl_tl.pages import KEPT_BYTES, Pages, give_back

if TYPE_CHECKING:
    from pathlib import Path

ROW = 1 << 20
ROWS = 3 * KEPT_BYTES // ROW


def _shared() -> int:
    """Resident bytes of this process that belong to files."""
    return int(psutil.Process().memory_info().shared)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident of files")
def test_little_of_a_large_map_stays_resident(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(ROWS, ROW))
    before, most = _shared(), 0
    pages = Pages(array)
    for row in range(ROWS):
        array[row] = row % 251
        pages.touch(array[row])
        most = max(most, _shared() - before)
    assert most <= KEPT_BYTES + 16 * ROW
    again = np.load(path, mmap_mode="r")
    assert [int(again[row].min()) for row in range(ROWS)] == [row % 251 for row in range(ROWS)]


def test_other_arrays_are_left_alone() -> None:
    array = np.ones((2, KEPT_BYTES), np.uint8)
    pages = Pages(array)
    pages.touch(array)
    assert array.all()


def test_a_view_belongs_to_its_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert Pages(mapped[1:].T)._map is not None


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_what_was_freed_between_what_is_kept_is_given_back() -> None:
    held = [bytes(20_000) for _ in range(8_000)]
    kept = held[::100]
    before = psutil.Process().memory_info().rss
    del held
    give_back()
    assert before - psutil.Process().memory_info().rss > 100 << 20
    assert len(kept) == 80
