"""What each worker does, from the events of a search."""

from __future__ import annotations

from typing import Any

import pytest

from automl_tl.cli import bars
from automl_tl.cli.doing import Doing, doing
from automl_tl.cli.live import Dashboard
from automl_tl.cli.state import SearchState, Stage

STUDY = {"name": "pets", "bounds": {"trials": 9, "time": None, "target": None}}
PARAMS = {"learning_rate": 3.2e-4, "optimizer": "adamw", "head_layers": 0}


class Search:
    """A state that is told one event a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state = SearchState("accuracy", lambda: self.now)
        self.tell("study", **STUDY)

    def tell(self, event: str, **facts: Any) -> None:
        self.state.update({**facts, "event": event})
        self.now += 1

    def ask(self, number: int, worker: int) -> None:
        self.tell("trial_asked", number=number, worker=worker, backbone="torch/a", params=PARAMS)

    def start(self, number: int, worker: int, at: int = 3) -> None:
        facts = {"backbone": "torch/a", "params": PARAMS, "fine_tune_at": at, "layers": 9}
        plan = "fine-tuning from activations at layer 3"
        self.tell("trial_started", number=number, worker=worker, plan=plan, **facts)

    def stage(self, what: str, done: int, total: int = 800, worker: int | None = 0, **more: Any):
        self.tell("stage", worker=worker, what=what, done=done, total=total, **more)

    def epoch(self, number: int, worker: int, done: int, phase: str = "fine-tuning") -> None:
        facts = {"epochs": 12, "value": 0.75, "seconds": 4.0, "phase": phase}
        self.tell("epoch", number=number, worker=worker, epoch=done - 1, **facts)

    def rows(self, wide: bool = True) -> list[Doing]:
        return list(doing(self.state, wide))

    def drawn(self, width: int) -> list[str]:
        from rich.console import Console

        console = Console(width=width, markup=False)
        with console.capture() as capture:
            console.print(Dashboard(self.state).draw(width))
        return capture.get().splitlines()


@pytest.fixture
def search() -> Search:
    return Search()


def test_every_worker_has_its_row(search: Search) -> None:
    search.ask(0, worker=0)
    search.ask(1, worker=1)
    search.start(1, worker=1)
    search.stage("prefix torch/a", 0, worker=1)
    search.stage("prefix torch/a", 200, worker=1)
    first, second = search.rows()
    assert (first.who, first.what, first.facts) == ("worker 0, trial 0", "starting", "5.0s")
    assert (second.who, second.what) == ("worker 1, trial 1", "storing frozen layers")
    assert second.facts == "200/800  200/s  3.0s left"
    assert second.plan == "fine-tuning from activations at layer 3"
    assert [row.who for row in search.rows(wide=False)] == ["worker 0", "worker 1"]
    search.tell("worker_died", worker=0, reason="killed")
    assert [row.who for row in search.rows()] == ["worker 1, trial 1"]


def test_workers_that_have_not_spoken_yet_are_starting(search: Search) -> None:
    assert [row.what for row in search.rows()] == ["starting workers"]
    search.ask(0, worker=0)
    assert [row.what for row in search.rows()] == ["starting"]


def test_one_worker_goes_without_a_number(search: Search) -> None:
    search.start(4, worker=0)
    assert [row.who for row in search.rows(wide=False)] == ["trial 4"]


def test_trials_that_are_trained_together_have_one_row(search: Search) -> None:
    for number in range(12):
        search.start(number, worker=0)
    search.epoch(3, 0, done=2)
    [row] = search.rows()
    assert (row.who, row.facts) == ("12 trials", "epoch 2/12  40s left")
    shown = [line for line in search.drawn(120) if line.strip().startswith(">")]
    assert [line.split()[1] for line in shown] == [str(n) for n in range(11, 3, -1)]


def test_training_counts_epochs_and_the_part_of_the_one_that_runs(search: Search) -> None:
    search.start(0, worker=0)
    search.epoch(0, 0, done=2, phase="warm-up")
    assert search.rows()[0].facts == "epoch 2/12"  # nobody knows how long fine-tuning takes
    search.stage("fine-tuning", 0)
    search.stage("fine-tuning", 400)
    assert search.rows()[0].facts == "epoch 3/12  400/s"
    search.epoch(0, 0, done=3)
    assert search.rows()[0].facts == "epoch 3/12  36s left"
    search.stage("fine-tuning", 0)
    search.stage("fine-tuning", 400)
    [row] = search.rows()
    assert (row.what, row.done, row.total) == ("fine-tuning", 3.5, 12)
    assert row.facts == "epoch 4/12  400/s  34s left"
    search.tell("trial_finished", number=0, worker=0, state="complete", value=0.75)
    assert search.rows() == []


def test_the_warm_up_of_a_frozen_trial_has_an_estimate(search: Search) -> None:
    search.start(0, worker=0, at=9)
    search.epoch(0, 0, done=2, phase="warm-up")
    assert search.rows()[0].facts == "epoch 2/12  40s left"


def test_work_without_a_worker_comes_first_and_downloads_count_bytes(search: Search) -> None:
    search.ask(0, worker=0)
    size = 13 * 1024**2
    search.stage("downloading a.pth", 0, 0, worker=None, unit="bytes")
    assert search.rows()[0].facts == "1.0s"
    search.stage("downloading a.pth", 1024**2, size, worker=None, unit="bytes")
    search.stage("downloading a.pth", 3 * 1024**2, size, worker=None, unit="bytes")
    first, second = search.rows()
    assert (first.who, first.what) == ("", "downloading a.pth")
    assert first.facts == "3.0 MiB/13.0 MiB  1.5 MiB/s  6.7s left"
    assert second.what == "starting"
    search.stage("downloading a.pth", 1, 1, worker=None, unit="bytes")
    assert len(search.rows()) == 1


def test_reuse_is_added_up(search: Search) -> None:
    for number in range(2):
        search.ask(number, worker=0)
        reuse = {"passes": [{}, {}], "seconds": 40.0}
        done = {"state": "complete", "value": 0.5, "reuse": reuse}
        search.tell("trial_finished", number=number, worker=0, **done)
    assert "4 arrays stored, reuse saved 1m 20s" in "\n".join(search.drawn(120))


def test_a_plan_is_shown_where_there_is_room(search: Search) -> None:
    search.start(0, worker=0)
    assert "activations" not in "\n".join(search.drawn(120))
    assert "activations at layer 3" in "\n".join(search.drawn(150))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 139, 140, 200])
def test_rows_fit_and_keep_who_works(search: Search, width: int) -> None:
    for worker in range(2):
        search.start(worker, worker)
        search.stage("waiting for another process", 0, 1, worker)
    search.stage("decoding images of a very long name " * 3, 10, 20, worker=None)
    lines = search.drawn(width)
    assert max(map(len, lines)) <= width
    assert any(line.startswith("worker 1") for line in lines)


def test_before_the_study_is_known_it_prepares() -> None:
    search = Search()
    search.state = SearchState("accuracy", lambda: search.now)
    search.stage("decoding", 10, worker=None)
    lines = search.drawn(60)
    assert lines[0].startswith("preparing  time ")
    assert "10/800" in lines[1]


def test_what_has_no_measure_has_its_time() -> None:
    stage = Stage("writing onnx", 0, 0, started=10.0)
    assert bars.facts(stage, wide=True, now=14.0) == "4.0s"
