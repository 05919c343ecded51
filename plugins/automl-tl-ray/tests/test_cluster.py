"""Real searches on a cluster of two nodes."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from automl_tl.testing import EngineTestCase

from .conftest import trial_processes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Searcher, TwoNodes

TINY = ("--backbone", "torch/tiny", "--set", "epochs=2", "--set", "depth=0")
LONG = ("--backbone", "torch/tiny", "--set", "depth=1", "--set", "epochs=200")
ORPHAN_SECONDS = 20.0


class TestKit(EngineTestCase):
    @pytest.fixture
    def engine(self, cluster: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        return "ray"


def test_two_nodes_search_one_study_each_with_its_cache(
    cluster: TwoNodes, searcher: Searcher
) -> None:
    where = ("--engine", "ray", "--address", cluster.address)
    said = searcher.run("search", "digits", *where, *TINY, "--trials", "4", "--workers", "9")
    assert "Warning: Ray has 2 nodes with 2 CPUs and 0 GPUs: 2 workers with 1 CPU each; 9" in said
    facts = searcher.show("digits")
    assert facts["state"]["complete"] + facts["state"]["pruned"] == 4
    assert [trial["number"] for trial in facts["trials"]] == [0, 1, 2, 3]
    assert facts["best"]["test"] is not None
    assert [pixels(cluster.folder / f"cache-{node}") for node in (0, 1)] == [1, 1]
    logs = searcher.folder / "studies" / "digits" / "logs"
    assert {path.name for path in logs.iterdir()} == {"ray.log", "worker-0.log", "worker-1.log"}


@pytest.mark.slow
def test_a_lost_node_loses_no_finished_trial(cluster: TwoNodes, searcher: Searcher) -> None:
    """A node is killed, another one comes: its worker goes there, and fills that node's cache."""
    where = ("--engine", "ray", "--address", cluster.address)
    space = ("--backbone", "torch/tiny", "--set", "depth=0.5..1", "--set", "epochs=12")
    process = searcher.start(
        "search", "digits", *where, *space, "--set", "warmup_epochs=1", "--trials", "8"
    )
    lines = follow(process, lambda line: line.startswith("trial 1 "))
    wait_for(lambda: [t["state"] for t in trials_of(searcher)].count("running") == 2)
    finished = complete(searcher.show("digits"))
    cluster.tell("kill")
    killed = time.monotonic()
    lines += follow(process, lambda line: "was lost (the node" in line)
    noticed = time.monotonic() - killed
    cluster.tell("add")
    lines += follow(process, lambda line: False)
    said = "".join(lines)
    print(f"noticed after {noticed:.1f} s\n{said}")
    assert process.wait(60) == 0
    facts = searcher.show("digits")
    trials = facts["trials"]
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    end = complete(facts)
    assert {number: end[number] for number in finished} == finished
    lost = [trial for trial in trials if trial["state"] == "failed"]
    assert 1 <= len(lost) <= 2
    for trial in lost:
        assert "the node" in trial["reason"]
        again = [one for one in trials if one["retry_of"] == trial["number"]]
        assert len(again) == 1
    assert facts["state"]["complete"] + facts["state"]["pruned"] == 8
    assert said.count("the cluster had no room") == 0
    assert [pixels(path) for path in sorted(cluster.folder.glob("cache-*"))] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("local", [False, True], ids=["cluster", "local"])
def test_nothing_outlives_a_killed_search(
    cluster: TwoNodes, searcher: Searcher, local: bool
) -> None:
    where = ("--engine", "ray", "--address", "local" if local else cluster.address)
    process = searcher.start("search", "digits", *where, *LONG, "--trials", "4", "--workers", "2")
    wait_for(lambda: any(t["state"] == "running" for t in trials_of(searcher)))
    running = trial_processes(cluster.folder, searcher.folder)
    assert {"automl_tl.worker_process", "automl_tl.hosted"} <= {
        a for one in running for a in one.cmdline()
    }
    process.kill()
    process.wait(10)
    began = time.monotonic()
    wait_for(lambda: not any(alive(one) for one in running), ORPHAN_SECONDS)
    print(f"all gone {time.monotonic() - began:.1f} s after the kill")


@pytest.mark.slow
def test_ctrl_c_stops_cleanly(cluster: TwoNodes, searcher: Searcher) -> None:
    where = ("--engine", "ray", "--address", cluster.address)
    process = searcher.start("search", "digits", *where, *LONG, "--trials", "4")
    wait_for(lambda: any(t["state"] == "running" for t in trials_of(searcher)))
    time.sleep(8)  # epochs are finished
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    print(f"{time.monotonic() - began:.1f} s\n{said}")
    assert process.returncode == 130
    assert "automl-tl resume digits" in said
    facts = searcher.show("digits")
    assert facts["state"]["running"] == 0
    wait_for(lambda: not trial_processes(cluster.folder, searcher.folder), ORPHAN_SECONDS)


@pytest.mark.slow
def test_a_cluster_of_its_own(searcher: Searcher) -> None:
    said = searcher.run("search", "digits", "--engine", "ray", *TINY, "--trials", "2")
    assert "Ray has 1 node" in said
    assert searcher.show("digits")["best"]["test"] is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--address", "x:1"), "The engine local takes no --address: --engine ray does."),
        (("--gpus-per-trial", "1"), "The engine local takes no --gpus-per-trial: --engine ray"),
        (("--engine", "ray", "--gpus-per-trial", "0"), "Expected --gpus-per-trial above 0"),
        (("--engine", "ray", "--address", "x"), "Expected --address HOST:PORT of a Ray cluster"),
        (("--engine", "ray", "--address", "127.0.0.1:9"), "No Ray cluster answers at 127.0.0.1:9"),
    ],
)
def test_wrong_options_are_refused(
    searcher: Searcher, options: tuple[str, ...], sentence: str
) -> None:
    said = searcher.run("search", "digits", *options, *TINY, "--trials", "1", code=2)
    assert sentence in said
    assert not (searcher.folder / "studies").exists()  # nothing to begin again


def test_a_cluster_without_gpus_is_refused(cluster: TwoNodes, searcher: Searcher) -> None:
    where = ("--engine", "ray", "--address", cluster.address, "--gpus-per-trial", "0.25")
    said = searcher.run("search", "digits", *where, *TINY, "--trials", "1", code=2)
    assert "a node that has 1 CPU and 0.25 of a GPU for a worker, got 2 nodes with 2 CPUs" in said


def pixels(cache: Path) -> int:
    """Count the pixel arrays that a node's cache holds."""
    return len(list((cache / "pixels").glob("*/*/data.npy")))


def complete(facts: dict[str, Any]) -> dict[int, float]:
    return {t["number"]: t["value"] for t in facts["trials"] if t["state"] == "complete"}


def trials_of(searcher: Searcher) -> list[dict[str, Any]]:
    if not (searcher.folder / "studies" / "digits" / "study.toml").is_file():
        return []
    trials: list[dict[str, Any]] = searcher.show("digits")["trials"]
    return trials


def follow(process: subprocess.Popen[str], stop: Callable[[str], bool]) -> list[str]:
    """Read lines until one that stops, or the end."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if stop(line):
            break
    return lines


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(true: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
