"""Which trials are stopped early."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState

from automl_tl.pruner import FEWEST, WorstThird

STEP = 32


def make(direction="maximize"):
    return optuna.create_study(direction=direction, pruner=WorstThird())


def finish(study, *values, state=TrialState.COMPLETE):
    """Finish a trial for each value, which it had at ``STEP``."""
    for value in values:
        trial = study.ask()
        trial.report(value, STEP)
        study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)


def stops(study, *figures):
    """Return whether a trial with these figures, the last one at ``STEP``, is stopped."""
    trial = study.ask()
    for step, figure in enumerate(figures, STEP + 1 - len(figures)):
        trial.report(figure, step)
    return trial.should_prune()


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_the_worst_third_stops(direction, sign):
    study = make(direction)
    finish(study, *(sign * value for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)))
    assert stops(study, sign * 0.2)
    assert stops(study, sign * 0.29)
    assert not stops(study, sign * 0.3)  # it is no worse than the third from below
    assert not stops(study, sign * 0.9)


def test_what_is_stopped_stays_among_those_to_compare_with():
    """Optuna's rule would stop a third of the survivors, of theirs a third, and so on."""
    study = make()
    finish(study, 0.82, 0.83, 0.84, 0.85, 0.86)
    finish(study, *(0.8 - 0.01 * n for n in range(10)), state=TrialState.PRUNED)
    assert not stops(study, 0.81)
    assert stops(study, 0.74)
    optunas = optuna.pruners.PercentilePruner(66.0, n_startup_trials=5, n_min_trials=4)
    again = optuna.create_study(direction="maximize", pruner=optunas)
    for trial in study.trials:
        if trial.state.is_finished():
            again.add_trial(trial)
    assert stops(again, 0.81)


def test_the_best_figure_so_far_counts():
    study = make()
    finish(study, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert not stops(study, 0.45, 0.05)
    assert stops(study, 0.15, 0.05)


def test_a_few_trials_say_nothing():
    study = make()
    finish(study, *[0.9] * (FEWEST - 1))
    assert not stops(study, 0.1)
    assert not make().ask().should_prune()
    finish(study, 0.9)
    assert stops(study, 0.1)


def test_failed_trials_and_other_epochs_do_not_count():
    study = make()
    finish(study, *[0.9] * (FEWEST - 1))
    finish(study, 0.9, state=TrialState.FAIL)
    trial = study.ask()
    trial.report(0.9, STEP + 1)
    study.tell(trial, 0.9)
    assert not stops(study, 0.1)


def test_a_trial_without_a_number_stops_and_is_not_compared_with():
    study = make()
    finish(study, *[0.5] * FEWEST)
    assert stops(study, math.nan)
    assert not stops(study, 0.6, math.nan)
    finish(study, *[math.nan] * 20, state=TrialState.PRUNED)
    assert not stops(study, 0.5)
    assert stops(study, 0.4)
