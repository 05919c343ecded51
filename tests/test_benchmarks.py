"""The benchmarks run; what they measure is never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from benchmarks import render, trials
from benchmarks.agreement import agree
from benchmarks.measure import Run
from benchmarks.rival import Rival
from benchmarks.tracks import TRACKS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]


def bench(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def measured(folder: Path, *keys: str) -> dict[str, Any]:
    tracks = [word for key in keys for word in ("--track", key)]
    bench(*tracks, "--size", "tiny", "-o", str(folder))
    assert not (folder / "work").exists()
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    assert list(results["tracks"]) == list(keys)
    return results


def test_a_track_runs_and_is_saved_and_rendered(tmp_path: Path) -> None:
    results = measured(tmp_path, "A9")
    (found,) = results["tracks"]["A9"]["measures"]
    assert found["value"] >= 0
    assert {"cores", "cpu", "load", "commit", "packages"} <= set(results["machine"])
    ElementTree.parse(tmp_path / "results.svg")
    page = bench("--render", str(tmp_path / "results.json"))
    assert f"| A9 | {found['what']} | {render.figure(found['value'])} ms |" in page
    assert "| A1 | times faster, cold cache | - | - | >= 60 x | >= 150 x | - |" in page
    assert "results.json" in bench("--render", str(tmp_path / "nothing.json"), code=1)


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in TRACKS if key != "A9"])
def test_every_track_runs(tmp_path: Path, key: str) -> None:
    track = measured(tmp_path, key)["tracks"][key]
    assert {one["what"] for one in track["measures"]} == {t.what for t in TRACKS[key].targets}
    assert all(len(row) == len(t["columns"]) for t in track["tables"] for row in t["rows"])


def test_every_list_begins_with_the_shorter_one_and_costs_the_same() -> None:
    long = trials.frozen(60)
    assert long[:20] == trials.frozen(20)
    assert len({json.dumps(trial) for trial in long}) == 60

    def shape(listed: Sequence[trials.Trial]) -> list[Any]:
        names = ("head_layers", "head_units", "optimizer", "batch_size")
        return sorted([str(trial.get(name)) for name in names] for trial in listed)

    assert shape(long[:20]) == shape(long[20:40]) == shape(long[40:])


def test_a_ratio_counts_within_the_spread_of_seeds() -> None:
    ours = {0: [0.80, 0.84], 1: [0.90, 0.90], 2: [0.10, 0.90]}
    close = agree(ours, {0: [0.83], 1: [0.90]})
    assert (close.trials, round(close.ours, 4), round(close.theirs, 4)) == (2, 0.86, 0.865)
    assert close.spread == pytest.approx(0.02)
    assert close.counts
    assert not agree(ours, {0: [0.79], 1: [0.80]}).counts
    assert not agree({0: [0.8]}, {0: [0.8]}).counts, "without a spread nothing is known"


def test_a_part_is_scaled_to_the_whole_list() -> None:
    def rival(*seconds: float) -> Rival:
        run = Run(sum(seconds) + 5, 0, 0, 0, "")
        found = [{"seconds": s, "cpu": 2 * s, "accuracy": 1} for s in seconds]
        return Rival(run, found, setup=5, setup_cpu=7)

    assert rival(10).whole(20) == 5 + 200
    assert rival(30, 10, 12).whole(20) == 5 + 30 + 19 * 11
    assert rival(30, 10).whole(2, cpu=True) == 7 + 60 + 20
