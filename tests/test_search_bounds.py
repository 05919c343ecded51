"""When a search ends, where it was not said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from optuna.trial import TrialState

from automl_tl import Study, storage
from automl_tl.errors import StudyError
from automl_tl.facts import FACTS
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


def test_a_search_that_is_refused_leaves_the_bounds_alone(directory: StudyDirectory) -> None:
    with alone(directory.path), pytest.raises(StudyError, match="Another search is at work"):
        Study.open(directory.path).search(trials=1000, time="9h")
    assert directory.bounds() == ASKED
