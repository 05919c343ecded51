from __future__ import annotations

from typing import Any

import optuna
import pytest

from automl_tl.facts import FACTS
from automl_tl.tally import MAX_FAILURES, MAX_TWINS, Tally


def told(number: int, state: str = "complete", **facts: Any) -> dict[str, Any]:
    """What a worker says of a trial that finished."""
    message = {"event": "trial_finished", "number": number, "state": state, "value": None}
    return {**message, "again": False, "twin_of": None, "closing_seconds": 0.0, **facts}


def test_the_best_so_far_is_told_with_every_trial() -> None:
    tally = Tally("accuracy")
    first = tally.add(told(0, value=0.8, closing_seconds=2.5))
    worse = tally.add(told(1, value=0.7))
    same = tally.add(told(2, value=0.8))
    assert [first["best"], worse["best"], same["best"]] == [True, False, False]
    assert (worse["best_number"], worse["best_value"], worse["finished"]) == (0, 0.8, 2)
    assert tally.closing_seconds == 2.5
    assert not {"again", "twin_of", "closing_seconds"} & set(first)


def test_a_lower_log_loss_is_better() -> None:
    tally = Tally("log_loss")
    tally.add(told(0, value=0.8))
    assert tally.add(told(1, value=0.7))["best"]
    assert tally.reached(0.75)
    assert not tally.reached(0.65)


def test_no_value_is_not_better_than_any() -> None:
    tally = Tally("accuracy")
    tally.add(told(0, value=0.5))
    assert not tally.add(told(1, value=float("nan")))["best"]
    assert tally.best == (0, 0.5)


def test_a_target_is_not_reached_before_the_first_trial() -> None:
    assert not Tally("accuracy").reached(0.0)


def test_a_trial_that_is_tried_again_does_not_count() -> None:
    tally = Tally("accuracy")
    assert tally.add(told(0, "failed", again=True, reason="out of memory"))["finished"] == 0
    assert tally.add(told(1, value=0.5))["finished"] == 1


def test_an_exhausted_space_makes_going_on_vain() -> None:
    tally = Tally("accuracy")
    tally.add(told(0, value=0.5))
    for number in range(1, MAX_TWINS):
        tally.add(told(number, value=0.5, twin_of=0))
    assert tally.in_vain() is None
    tally.add(told(MAX_TWINS, value=0.5, twin_of=0))
    assert tally.in_vain() == "everything in the search space was tried"


def test_failures_make_going_on_vain_only_without_a_success() -> None:
    tally, lucky = Tally("accuracy"), Tally("accuracy")
    lucky.add(told(0, value=0.5))
    for number in range(MAX_FAILURES):
        reason = "no such layer" if number else "another"
        tally.add(told(number, "failed", reason=reason))
        lucky.add(told(number + 1, "failed", reason=reason))
    assert tally.in_vain() == "every trial failed"
    assert tally.commonest_failure() == "no such layer"
    assert lucky.in_vain() is None


def test_a_trial_that_was_read_before_it_is_told_counts_once() -> None:
    """Another worker died between its end and its message."""
    study = optuna.create_study(direction="maximize")
    tally = Tally("accuracy")
    tally.read(study)
    study.tell(study.ask(), 0.5)
    tally.read(study)
    first = tally.add(told(0, value=0.5))
    assert (first["finished"], first["best"]) == (1, True)
    study.tell(study.ask(), 0.4)
    assert tally.add(told(1, value=0.4))["finished"] == 2
    tally.read(study)
    assert tally.finished == 2


@pytest.mark.parametrize("retried", [True, False])
def test_a_storage_is_counted(retried: bool) -> None:
    study = optuna.create_study(direction="maximize")
    best = study.ask()
    best.set_user_attr(FACTS, {"closing_seconds": 4.0})
    study.tell(best, 0.9)
    lost = study.ask()
    lost.set_user_attr(FACTS, {"retried": retried})
    study.tell(lost, state=optuna.trial.TrialState.FAIL)
    study.ask()
    tally = Tally("accuracy")
    tally.read(study)
    assert tally.finished == (1 if retried else 2)
    assert tally.best == (0, 0.9)
    assert tally.closing_seconds == 4.0
