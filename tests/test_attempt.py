"""What is recorded and said of a trial on its way."""

from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from automl_tl import attempt as attempts
from automl_tl.attempt import Attempt
from automl_tl.cache.activations import Reuse
from automl_tl.errors import BackendDied, FinishTraining, PruneTraining, TrialError
from automl_tl.facts import FACTS, FILES, facts_of
from automl_tl.outcome import Outcome
from automl_tl.planner import Tap, frozen_plan
from automl_tl.space import Space
from automl_tl.types import Cut, EpochReport, Layer, NetworkInfo, TrainFacts

EPOCHS = 8
INFO = NetworkInfo((Layer("l", "Conv", 10),), (Cut(0, (8, 8, 3), 0), Cut(1, (4, 2, 2), 1)), 4, "1")
FROZEN = {"depth": 0, "head_layers": 0, "epochs": EPOCHS, "warmup_epochs": 0}


class Owner:
    def __init__(self, study):
        self.study, self.said, self.checked = study, [], []

    def say(self, event, **facts):
        self.said.append((event, facts))

    def observe_epoch(self, number, report, value):
        pass

    def check(self, ahead):
        self.checked.append(ahead)

    def closing_seconds(self, parameters):
        return 0.5


@pytest.fixture
def owner():
    pruner = optuna.pruners.PercentilePruner(66.0, n_startup_trials=2, n_min_trials=2)
    return Owner(optuna.create_study(direction="maximize", pruner=pruner))


def begin(owner, settings=FROZEN):
    attempt = Attempt(owner, owner.study.ask(), Space(("a/x",), settings), images=100)
    hooks = attempt.hooks()
    at = len(INFO.layers) if attempt.spec.frozen else 0
    hooks.planned(INFO, at, frozen_plan(Tap(1, "avg")))
    return attempt, hooks


def train(hooks, value, phase="warm-up"):
    for epoch in range(EPOCHS):
        logits = np.zeros((2, 2), np.float32)
        hooks.epoch(EpochReport(phase, epoch, EPOCHS, 1.0, logits, 0.1, 0.01), value, 0.01)


def outcome(value):
    facts = TrainFacts(10, 5, 2, "cpu", "float32")
    logits = np.zeros((2, 2), np.float32)
    return Outcome(value, {"accuracy": value}, logits, [], facts, 1.0, (), None, Reuse())


def test_a_small_head_is_reported_at_its_end_only(owner):
    attempt, hooks = begin(owner)
    train(hooks, 0.5)
    attempt.complete(outcome(0.5), together=4)
    attempt.tell()
    (trial,) = owner.study.trials
    assert trial.intermediate_values == {EPOCHS - 1: 0.5}
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    assert trial.user_attrs[FACTS]["head_scale"] == 1.0
    events = [event for event, _ in owner.said]
    assert events[0] == "trial_started"
    assert events[-1] == "trial_finished"
    assert events.count("epoch") < EPOCHS
    assert owner.checked == [0.01] * (EPOCHS - 1), "after the last epoch there is nothing to stop"


def test_a_costly_head_is_reported_and_pruned_once_it_is_half_way(owner, monkeypatch):
    monkeypatch.setattr(attempts, "COSTLY_EPOCH", 100)
    for value in (0.8, 0.9, 0.85):
        good, hooks = begin(owner)
        train(hooks, value)
        good.complete(outcome(value))
        good.tell()
        assert len(owner.study.trials[-1].intermediate_values) == EPOCHS
    bad, hooks = begin(owner)
    with pytest.raises(PruneTraining) as pruned:
        train(hooks, 0.1)
    assert bad.facts["epochs"] == EPOCHS // 2
    bad.fail(pruned.value)
    bad.tell()
    assert owner.study.trials[-1].state == TrialState.PRUNED
    assert bad.value == 0.1


def test_the_warm_up_of_a_trial_that_goes_on_is_never_pruned(owner, monkeypatch):
    monkeypatch.setattr(attempts, "COSTLY_EPOCH", 100)
    attempt, hooks = begin(owner, {**FROZEN, "depth": 1.0})
    train(hooks, 0.1)
    assert owner.study.trials[attempt.number].intermediate_values == {EPOCHS - 1: 0.1}


@pytest.mark.parametrize(
    ("error", "state", "again"),
    [
        (TrialError("no"), "failed", False),
        (ValueError("bug"), "failed", False),
        (FinishTraining("the time is up"), "stopped", True),
        (BackendDied("gone"), "stopped", True),
    ],
)
def test_what_ended_through_no_fault_of_its_own_is_tried_again(owner, error, state, again):
    attempt, _ = begin(owner)
    attempt.fail(error)
    attempt.tell()
    event, facts = owner.said[-1]
    assert (event, facts["state"], facts["again"]) == ("trial_finished", state, again)
    assert str(error) in facts["reason"]
    assert [t.state for t in owner.study.trials][1:] == [TrialState.WAITING] * again


def test_stops_without_an_epoch_fail_nothing_for_good(owner):
    """As ``--time``, Ctrl-C and SIGTERM do it; a framework that dies uses up the one retry."""
    stop, death = FinishTraining("the time is up"), BackendDied("gone")
    for error, again in ((stop, True), (stop, True), (death, True), (stop, True), (death, False)):
        attempt, _ = begin(owner)
        attempt.fail(error)
        attempt.tell()
        assert owner.said[-1][1]["state"] == ("stopped" if again else "failed")
        assert owner.said[-1][1]["again"] == again
    lost = facts_of(owner.study.trials[0])
    assert (lost["reason"], lost["spec"]["backbone"]) == ("the time is up", "a/x")


def test_a_reason_that_no_database_would_take_is_cut(owner):
    attempt, _ = begin(owner)
    attempt.fail(TrialError("x" * 100_000))
    attempt.tell()
    (trial,) = owner.study.get_trials()
    assert len(json.dumps(trial.user_attrs[FACTS])) < 2**16


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FinishTraining("the trial's time is up"), "without finishing an epoch"),
        (BackendDied("gone"), "did not stop when it was asked to, so its process was ended"),
    ],
)
def test_what_took_too_long_is_not_tried_again(owner, error, reason):
    attempt = Attempt(owner, owner.study.ask(), Space(("a/x",), FROZEN), 100, timeout=1e-6)
    with pytest.raises(FinishTraining, match="the trial's time is up"):
        attempt.check()
    attempt.fail(error)
    attempt.tell()
    (trial,) = owner.study.get_trials()
    assert trial.state == TrialState.FAIL
    assert reason in trial.user_attrs[FACTS]["reason"]


def test_a_trial_ends_before_the_epoch_that_would_end_too_late(owner):
    attempt = Attempt(owner, owner.study.ask(), Space(("a/x",), FROZEN), 100, timeout=60)
    attempt.check(ahead=10)
    assert owner.checked == [10]
    with pytest.raises(FinishTraining, match="the trial's time is up"):
        attempt.check(ahead=61)


def test_what_others_took_is_not_its_time(owner):
    attempt = Attempt(owner, owner.study.ask(), Space(("a/x",), FROZEN), 100, timeout=60)
    attempt.waited(50)
    attempt.check(ahead=59)
    attempt.waited(-100)
    with pytest.raises(FinishTraining, match="the trial's time is up"):
        attempt.check(ahead=11)
    attempt.waited(50)
    attempt.complete(outcome(0.5))
    attempt.tell()
    (trial,) = owner.study.trials
    assert 0 <= trial.user_attrs[FACTS]["duration_s"] < 5


def test_a_twin_takes_over_the_figures(owner):
    first, hooks = begin(owner)
    train(hooks, 0.7)
    first.complete(outcome(0.7))
    first.facts[FILES] = {"head.safetensors": {"id": "the first's", "sha256": "x"}}
    first.tell()
    second, _ = begin(owner)
    second.take_over(owner.study.trials[0])
    second.tell()
    assert owner.study.trials[1].value == 0.7
    assert FILES not in owner.study.trials[1].user_attrs[FACTS]  # who drops its model drops these
    assert owner.said[-1][1]["twin_of"] == 0
