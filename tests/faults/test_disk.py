"""A disk that is full at each of the writes, or cannot be written at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.conftest import SEARCH
from tests.faults.disk import Disk, disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Faults

__all__ = ["disk"]

SETTINGS = (*SEARCH[:2], "--set", "image_size=32", "--set", "epochs=3", "--set", "head_layers=0")
TUNED = (*SETTINGS, "--set", "depth=1")
FROZEN = (*SETTINGS, "--set", "depth=0")


def facts(disk: Disk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(disk.run("show", str(disk.path / "s"), "--json"))
    return found


@pytest.mark.slow
def test_no_room_for_the_journal(disk: Disk, photos: Path, faults: Faults) -> None:
    """A page of a full disk still takes what fits into it: the epochs' records are more."""
    study = str(disk.path / "s")
    faults.cause("slow epoch", 3)
    long = (*TUNED, "--set", "epochs=100")
    process = disk.start("search", str(photos), *long, "--study", study, "--trials", "2")
    faults.wait("slow epoch", process)
    disk.fill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "journal.log cannot be written (No space left on device)" in err
    disk.free()
    disk.run("resume", study, "--trials", "2")
    assert facts(disk)["state"]["complete"] == 2


@pytest.mark.slow
def test_no_room_for_a_checkpoint(disk: Disk, photos: Path, faults: Faults) -> None:
    """The journal's records still fit. The trial is begun again when there is room."""
    study = str(disk.path / "s")
    faults.cause("slow epoch", 3)
    process = disk.start("search", str(photos), *TUNED, "--study", study, "--trials", "1")
    faults.wait("slow epoch", process)
    disk.fill(leave=70_000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert f"The disk of {study} is full" in err
    disk.free()
    disk.run("resume", study, "--trials", "1")
    first, again = facts(disk)["trials"]
    assert (first["state"], again["state"], again["retry_of"]) == ("failed", "complete", 0)


@pytest.mark.slow
def test_no_room_for_the_cache(disk: Disk, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for pixels, without which there is no study, nor for activations."""
    disk.fill(leave=200_000)
    search = ("search", str(photos), *TUNED, "--study", "s", "--trials", "1")
    assert "An array of 360.0 KiB exceeds" in disk.cached_in().run(*search, code=2)
    monkeypatch.setenv("AUTOML_TL_CACHE_SIZE", "100M")
    small = disk.cached_in()
    err = small.run(*search, code=2)
    assert "No room for 360.0 KiB under" in err and "(No space left on device)" in err
    assert not (disk.folder / "studies").exists()
    disk.free()
    disk.fill(leave=384_000)
    err = small.run("search", str(photos), *FROZEN, "--study", "s", "--trials", "9", code=2)
    assert "No trial succeeded; most failed because: No room for" in err
    disk.free()
    small.run("resume", "s", "--trials", "9")


@pytest.mark.slow
def test_no_room_for_logs_a_report_or_an_export(disk: Disk, photos: Path) -> None:
    study, there = str(disk.path / "s"), disk.inside / "s"
    disk.run("search", str(photos), *TUNED, "--study", study, "--trials", "1")
    disk.fill()
    for command in ("export", "report"):
        suffix = "onnx" if command == "export" else "html"
        place = disk.path / f"out.{suffix}"
        err = disk.run(command, study, "-o", str(place), code=2)
        assert "No space left on device" in err and len(err.splitlines()) == 1
        assert sorted(path.name for path in disk.inside.iterdir()) == ["filler", "s"]
    assert json.loads(disk.run("show", study, "--json"))["best"]["test"]
    (there / "logs" / "worker-0.log").unlink()
    process = disk.start("resume", study, "--trials", "2")
    _, err = process.communicate(timeout=120)
    assert "cannot be written (No space left on device)" in err, "of the journal, not of the log"
    assert process.returncode == 2
    disk.free()
    disk.run("export", study, "-o", str(disk.path / "out.onnx"))


@pytest.mark.slow
def test_a_study_that_cannot_be_written(disk: Disk, photos: Path) -> None:
    """It is shown, reported and exported; searching is refused in a sentence."""
    study = str(disk.path / "s")
    disk.run("search", str(photos), *TUNED, "--study", study, "--trials", "1")
    disk.make_read_only()
    assert "best: trial 0" in disk.run("show", study)
    disk.run("report", study, "-o", "report.html")
    disk.run("export", study, "-o", "m.onnx")
    image = str(photos / "circle" / "000.png")
    assert "circle" in disk.run("predict", "m.onnx", image, "--json")
    for command in (("report", study), ("resume", study, "--trials", "2")):
        err = disk.run(*command, code=2)
        assert "Read-only file system" in err and len(err.splitlines()) == 1, err
    new = str(disk.path / "t")
    err = disk.run("search", str(photos), *TUNED, "--study", new, "--trials", "1", code=2)
    assert "Read-only file system" in err and len(err.splitlines()) == 1, err
