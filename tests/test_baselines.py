"""The trials that a study begins with."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState

from automl_tl import storage
from automl_tl.baselines import DEEPER_COSTS, RECIPES, Baselines
from automl_tl.facts import FACTS
from automl_tl.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study

SPACE = Space(tuple(f"a/{number}" for number in range(6)), {})
PROBES = [(backbone, 0.0) for backbone in SPACE.backbones]
PROBE_VALUES = (0.5, 0.9, None, 0.7, 0.8, 0.6)
TUNED = [("a/1", 0.25), ("a/1", 0.5), ("a/4", 0.5), ("a/3", 0.5), ("a/5", 0.5)]


def enqueued(study: Study) -> list[tuple[str, float]]:
    fixed = [trial.system_attrs.get("fixed_params") for trial in study.trials]
    found = [params for params in fixed if params is not None]
    return [(params["backbone"], params["depth"]) for params in found]


def finish(study: Study, value: float | None, seconds: float = 1.0, **facts: Any) -> None:
    trial = study.ask()
    SPACE.suggest(trial)
    trial.set_user_attr(FACTS, facts)
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    number = study.tell(trial, value, state=state).number
    told = study.get_trials(deepcopy=False)[number]
    told.datetime_start = told.datetime_complete - timedelta(seconds=seconds)


def test_the_best_probes_are_tuned_once_all_are_finished() -> None:
    study = optuna.create_study(direction="maximize")
    baselines = Baselines(study, SPACE)
    for value in (0.5, 0.9, None, 0.7, 0.8, 0.6):
        baselines.enqueue()
        assert enqueued(study) == PROBES
        finish(study, value)
    for again in (baselines, baselines, Baselines(study, SPACE)):
        again.enqueue()
        assert enqueued(study) == PROBES + TUNED


@pytest.mark.parametrize(
    ("values", "deeper"),
    [
        ((0.9, 0.8, 0.7, 0.91, 0.6), [("a/3", 1.0)]),
        ((0.9, 0.91, None, None, None), [("a/1", 1.0)]),
        ((0.9, 0.9, 0.7, 0.8, 0.6), []),
        ((None, None, None, None, None), []),
    ],
)
def test_the_best_goes_deeper_where_it_is_a_half(
    values: Sequence[float | None], deeper: list[tuple[str, float]]
) -> None:
    """A quarter that is as good says that more depth brings nothing."""
    study = optuna.create_study(direction="maximize")
    baselines = Baselines(study, SPACE)
    for value in (*PROBE_VALUES, *values):
        baselines.enqueue()
        assert not baselines.done
        finish(study, value)
    for again in (baselines, baselines, Baselines(study, SPACE)):
        again.enqueue(left=0)
        assert again.done
        assert enqueued(study) == [*PROBES, *TUNED, *deeper]


@pytest.mark.parametrize(
    ("left", "took", "before"),
    [
        (None, 1, RECIPES),
        (None, 40, math.ceil(DEEPER_COSTS * 60 / 40)),
        (50, 1, RECIPES),
        (7, 1, 4),  # of the last seven, four and those that follow the fourth
        (1, 1, 1),
    ],
)
def test_recipes_near_the_half_have_what_all_of_it_will_take(
    left: int | None, took: int, before: int
) -> None:
    """Seconds, or half of the trials that are left."""
    study = optuna.create_study(direction="maximize")
    baselines = Baselines(study, SPACE)
    for value in (*PROBE_VALUES, 0.9, 0.95, 0.7, 0.8, 0.6):
        baselines.enqueue()
        finish(study, value, seconds=60)
    for drawn in range(RECIPES + 1):
        baselines.enqueue(None if left is None else left - drawn)
        if baselines.done:
            break
        finish(study, 0.8, seconds=took)
    assert drawn == before
    assert enqueued(study)[-1] == ("a/1", 1.0)


def test_a_baseline_that_is_a_twin_has_its_rank() -> None:
    """Another worker may have drawn the same by chance."""
    study = optuna.create_study(direction="maximize")
    baselines = Baselines(study, SPACE)
    baselines.enqueue()
    for value in (0.5, 0.9, 0.4, 0.7, 0.8):
        finish(study, value)
    finish(study, 0.95, twin_of=7)
    baselines.enqueue()
    assert enqueued(study)[len(PROBES)] == ("a/5", 0.25)


@pytest.mark.parametrize("interrupted", range(len(PROBES) + len(TUNED)))
def test_one_that_is_tried_again_is_waited_for_and_ranked(interrupted: int) -> None:
    study = optuna.create_study(direction="maximize")
    baselines = Baselines(study, SPACE)
    values = {**dict(zip(PROBES, PROBE_VALUES, strict=True)), ("a/1", 0.25): 0.8, ("a/1", 0.5): 0.9}
    tried: list[tuple[str, float | None]] = []
    while not baselines.done:
        baselines.enqueue(left=0)
        if not baselines.waiting:
            break
        trial = study.ask()
        spec = SPACE.suggest(trial)
        tried.append((spec.backbone, spec.depth))
        if len(tried) == interrupted + 1:
            storage.fail(study, study.trials[trial.number], "it was stopped", stopped=True)
            continue
        value = values.get((spec.backbone, spec.depth or 0.0), 0.7)
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.tell(trial, value, state=state)
    again = tried.pop(interrupted)
    assert again in tried
    assert sorted(map(str, tried)) == sorted(map(str, [*PROBES, *TUNED, ("a/1", 1.0)]))


def test_a_kill_loses_and_doubles_none() -> None:
    study = optuna.create_study(direction="minimize")
    first: dict[str, Any] = SPACE.probes()[0]
    study.enqueue_trial(first)  # killed right after this
    Baselines(study, SPACE).enqueue()
    assert [trial.system_attrs["fixed_params"] for trial in study.trials] == SPACE.probes()
    for value in range(6):
        finish(study, float(value))
    study.enqueue_trial(SPACE.tuned(SPACE.backbones)[0])  # and after this
    Baselines(study, SPACE).enqueue()
    depths = [depth for _, depth in enqueued(study)]
    assert depths == [0.0] * 6 + [0.25, 0.5] + [0.5] * 3
