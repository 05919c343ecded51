"""A disk that is full at each of the writes, or cannot be written at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.faults.conftest import SEARCH
from tests.faults.disk import disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Faults
    from tests.faults.disk import Disk

__all__ = ["disk"]

SETTINGS = (*SEARCH[:2], "--set", "image_size=32", "--set", "epochs=3", "--set", "head_layers=0")
TUNED = (*SETTINGS, "--set", "depth=1")


def facts(disk: Disk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(disk.run("show", str(disk.path / "s"), "--json"))
    return found


def test_the_trials_writes(disk: Disk, photos: Path, faults: Faults) -> None:
    study = str(disk.path / "s")
    faults.cause("slow epoch", 3)
    process = disk.start("search", str(photos), *TUNED, "--study", study, "--trials", "3")
    faults.wait("slow epoch", process)
    disk.fill()
    out, err = process.communicate(timeout=120)
    print(process.returncode, out, err)
    print(*(p for p in (disk.inside / "s").rglob("*")), sep="\n")
    disk.free()
    print(json.dumps(facts(disk)["trials"])[:3000])
    disk.run("resume", study, "--trials", "3")
    assert facts(disk)["state"]["complete"] == 3
    assert 0
