"""The trials that a study begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState

from automl_tl.baselines import Baselines
from automl_tl.facts import FACTS
from automl_tl.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study

SPACE = Space(tuple(f"a/{number}" for number in range(6)), {})
PROBES = [(backbone, 0.0) for backbone in SPACE.backbones]
TUNED = [("a/1", 0.25), ("a/1", 0.5), ("a/4", 0.5), ("a/3", 0.5), ("a/5", 0.5)]


def enqueued(study: Study) -> list[tuple[str, float]]:
    found = [trial.system_attrs["fixed_params"] for trial in study.trials]
    return [(params["backbone"], params["depth"]) for params in found]


def finish(study: Study, value: float | None, **facts: Any) -> None:
    trial = study.ask()
    SPACE.suggest(trial)
    trial.set_user_attr(FACTS, facts)
    study.tell(trial, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


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
    for value in (0.5, 0.9, None, 0.7, 0.8, 0.6, *values):
        baselines.enqueue()
        assert not baselines.done
        finish(study, value)
    for again in (baselines, baselines, Baselines(study, SPACE)):
        again.enqueue()
        assert again.done
        assert enqueued(study) == [*PROBES, *TUNED, *deeper]


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
