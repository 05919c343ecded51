"""Trials that died or were stopped: failed, and tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from optuna.trial import TrialState

from automl_tl import owner, storage
from automl_tl.facts import FACTS, LOST, RETRY_OF, facts_of
from automl_tl.ledger import Ledger
from tests.storages import open_study

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial


def test_a_dead_owners_trial_fails_and_is_tried_once_more(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    dead = {**owner.sign("a", 0), "started": 1.0}
    trial.set_user_attr(owner.OWNER, dead)
    assert storage.reap(study, "killed", owner.dead_here) == [(0, True)]
    failed = study.trials[0]
    assert failed.state == TrialState.FAIL
    assert facts_of(failed)["reason"] == "killed"

    again = study.ask()
    assert again.suggest_float("x", 0, 1) == x
    assert again.user_attrs[RETRY_OF] == 0
    again.set_user_attr(owner.OWNER, dead)
    assert storage.reap(study, "killed", owner.dead_here) == [(1, False)]
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL]


@pytest.mark.parametrize("how", ["journal", "sqlite"])
def test_stops_use_up_no_retry(tmp_path: Path, how: str) -> None:
    study = open_study(tmp_path, url=f"sqlite:///{tmp_path}/o.db" if how == "sqlite" else None)
    study.ask().suggest_float("x", 0, 1)
    for stops in range(4):
        running = study.get_trials(deepcopy=False)[-1]
        assert storage.fail(study, running, "the time is up", stopped=True) is True
        again = study.ask()
        assert again.suggest_float("x", 0, 1) == running.params["x"]
        assert again.user_attrs[RETRY_OF] == stops
    for reason, stopped, tried in (
        ("its process died", False, True),
        ("the time is up", True, True),
        ("its process died", False, False),
    ):
        running = study.get_trials(deepcopy=False)[-1]
        assert storage.fail(study, running, reason, stopped=stopped) is tried
        assert facts_of(study.trials[running.number])["reason"] == reason
        if tried:
            study.ask()
    ledger = Ledger(study)
    ledger.look()
    assert (len(ledger), ledger.counted) == (7, 1)


def test_a_retry_that_an_earlier_version_enqueued_is_the_last(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue_trial({}, user_attrs={RETRY_OF: 0})
    for reason, stopped, tried in (("stopped", True, True), ("died", False, False)):
        number = study.ask().number
        assert storage.fail(study, study.trials[number], reason, stopped=stopped) is tried


def test_a_trial_that_two_end_at_once_has_the_facts_of_its_state(tmp_path: Path) -> None:
    """A search takes a worker for dead that comes back while the trial is failed."""
    url = f"sqlite:///{tmp_path / 'o.db'}"
    here, there = (open_study(tmp_path, url=url) for _ in range(2))
    trial = here.ask()
    silent = there.get_trials(deepcopy=False)[0]
    trial.set_user_attr(FACTS, {"spec": {}, "stopped": None})
    fail_there = there.tell

    def tell(*arguments: Any, **named: Any) -> FrozenTrial:
        here.tell(trial, 0.9)
        return fail_there(*arguments, **named)

    there.tell = tell  # type: ignore[method-assign]
    assert storage.fail(there, silent, "silent") is None
    (told,) = open_study(tmp_path, url=url).trials
    assert (told.state, facts_of(told)) == (TrialState.COMPLETE, {"spec": {}, "stopped": None})


def test_who_fails_a_trial_does_what_was_recorded_last(tmp_path: Path) -> None:
    """Of a stopped worker and a search that takes it for dead, the one says, the other fails."""
    study = open_study(tmp_path)
    study.enqueue_trial({}, user_attrs={RETRY_OF: 0})
    trial = study.ask()
    running = study.get_trials(deepcopy=False)[0]
    tell = study.tell

    def late(*arguments: Any, **named: Any) -> FrozenTrial:
        trial.set_user_attr(LOST, {"reason": "silent", "retried": False})
        return tell(*arguments, **named)

    study.tell = late  # type: ignore[method-assign]
    assert storage.fail(study, running, "the time is up", stopped=True) is False
    assert [t.state for t in study.trials] == [TrialState.FAIL]


def test_live_and_unsigned_trials_are_left_alone_unless_nobody_else_is_there(
    tmp_path: Path,
) -> None:
    study = open_study(tmp_path)
    study.ask().set_user_attr(owner.OWNER, owner.sign("a", 0))
    study.ask()
    assert storage.reap(study, "killed", owner.dead_here) == []
    assert storage.reap(study, "killed", owner.anybody) == [(0, True), (1, True)]


def test_a_searchs_workers_are_told_apart(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for search, worker in (("a", 0), ("a", 1), ("b", 0)):
        study.ask().set_user_attr(owner.OWNER, owner.sign(search, worker))
    assert storage.reap(study, "killed", owner.of("a", 1)) == [(1, True)]
    assert storage.reap(study, "killed", owner.of("a")) == [(0, True)]
    assert [t.state for t in study.trials[:3]] == [*[TrialState.FAIL] * 2, TrialState.RUNNING]


def test_an_owner_elsewhere_counts_as_running() -> None:
    who = {**owner.sign("a", 0), "pid": 2**30}
    assert owner.dead_here(who)
    assert not owner.dead_here({**who, "host": "elsewhere"})
    assert not owner.dead_here({**who, "machine": "another container"})


@pytest.mark.parametrize("where", [LOST, FACTS])  # an earlier version's
def test_a_kill_while_failing_a_trial_neither_loses_nor_doubles_its_retry(
    tmp_path: Path, where: str
) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    trial.set_user_attr(where, {"reason": "killed", "retried": True})
    study.tell(trial, state=TrialState.FAIL)  # killed right after this
    for _ in range(2):
        storage.enqueue_lost(study)
    waiting = [t for t in study.trials if t.state == TrialState.WAITING]
    assert [t.user_attrs[RETRY_OF] for t in waiting] == [0]
    assert study.ask().suggest_float("x", 0, 1) == x


def test_of_two_that_fail_a_trial_one_has_it_tried_again(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.ask()
    (running,) = study.get_trials(deepcopy=True)
    assert storage.fail(study, running, "killed") is True
    assert storage.fail(study, running, "killed") is None
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
