"""When a search ends, where it was not said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from optuna.trial import TrialState

from automl_tl import Study, storage
from automl_tl.errors import StudyError, UsageError
from automl_tl.facts import FACTS, LOST
from automl_tl.guard import alone
from automl_tl.search_bounds import search_bounds
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.bounds import Bounds

ASKED = {"trials": 3, "time": None, "target": None, "trial_timeout": None}


@pytest.fixture
def directory(tmp_path: Path) -> StudyDirectory:
    """Return a study that was searched with ``--trials 3``."""
    data = StudyData(("a",), (), np.array([], np.int64), (), (), "none", {})
    storage.create_optuna(tmp_path, None, "s", "maximize")
    made = StudyDirectory.create(tmp_path, Config("s", "x", ()), data)
    made.write_bounds(ASKED)
    return made


def _resume(directory: StudyDirectory, **asked: Any) -> tuple[Bounds, list[str]]:
    said: list[str] = []
    given = ASKED | {"trials": None} | asked
    bounds = search_bounds(
        directory, **given, started=None, tell=lambda event: said.append(event["text"])
    )
    return bounds, said


def test_a_trial_that_was_killed_uses_up_no_bound(directory: StudyDirectory) -> None:
    study = storage.open_optuna(directory.path, None, "s", 0)
    for _ in range(2):
        study.tell(study.ask(), state=TrialState.PRUNED)
    lost = study.ask()  # killed at this moment
    assert _resume(directory)[0].trials == 3
    lost.set_user_attr(FACTS, {"retried": True})
    study.tell(lost, state=TrialState.FAIL)
    assert _resume(directory)[0].trials == 3
    study.tell(study.ask(), state=TrialState.PRUNED)
    bounds, said = _resume(directory)
    assert bounds.trials == 53
    assert said == ["No bound was given: at most 50 more trials and 1h 00m."]


@pytest.mark.parametrize(("lost", "name"), [("nonsense", "lost"), ({"reason": 1}, "reason")])
def test_a_damaged_record_of_how_a_trial_was_lost_is_refused(
    directory: StudyDirectory, lost: Any, name: str
) -> None:
    study = storage.open_optuna(directory.path, None, "s", 0)
    trial = study.ask()
    trial.set_user_attr(LOST, lost)
    study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(StudyError, match=f"Trial 0 of .* is recorded with a damaged '{name}'"):
        _resume(directory)


def test_a_search_that_is_refused_leaves_the_bounds_alone(directory: StudyDirectory) -> None:
    with alone(directory.path), pytest.raises(StudyError, match="Another search is at work"):
        Study.open(directory.path).search(trials=1000, time="9h")
    assert directory.bounds() == ASKED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("target", value) for value in (float("nan"), float("inf"), -0.1, 1.1, "high", True)),
        *(("trials", value) for value in (0, -1, 2.5, "many", True)),
        *(("time", value) for value in (float("nan"), 0, "soon")),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(
    directory: StudyDirectory, name: str, value: object
) -> None:
    with pytest.raises(UsageError, match=str(value)):
        _resume(directory, **{name: value})
    assert directory.bounds() == ASKED


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", True])
def test_a_seed_that_nothing_takes_is_refused(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed: expected a whole number from 0 to 4294967295"):
        Study.create(tmp_path / "s", "nowhere", seed=seed)


@pytest.mark.parametrize("workers", [0, 1.5, "two"])
def test_workers_are_counted(directory: StudyDirectory, workers: Any) -> None:
    with pytest.raises(UsageError, match="workers: expected a whole number from 1"):
        Study.open(directory.path).search(workers=workers)


@pytest.mark.parametrize(
    "found",
    [
        {"trials": "x"},
        {"trials": [3]},
        {"time": {}},
        {"time": "1" * 400},
        {"target": "a"},
        {"target": 10**400},
        {"trials": 9, "trial_timeout": [1]},
        [9],
    ],
)
def test_recorded_bounds_that_make_no_sense_are_none(directory: StudyDirectory, found: Any) -> None:
    (directory.path / "bounds.json").write_text(json.dumps(found))
    study = storage.open_optuna(directory.path, None, "s", 0)
    study.set_user_attr("automl_tl:bounds", found)  # a stranger's database
    bounds, said = _resume(directory)
    assert (bounds.trials, bounds.trial_seconds) == (50, None)
    assert said == ["No bound was given: at most 50 more trials and 1h 00m."]


def test_a_limit_for_a_trial_outlives_the_other_bounds(directory: StudyDirectory) -> None:
    _resume(directory, trials=10, trial_timeout="5m")
    assert _resume(directory, trials=20)[0].trial_seconds == 300
    assert directory.bounds() == ASKED | {"trials": 20, "trial_timeout": "5m"}
    assert _resume(directory, time="1h")[0].trial_seconds == 300
    assert _resume(directory, trial_timeout="9m")[0].trial_seconds == 540
    assert _resume(directory, trials=30)[0].trial_seconds == 540
