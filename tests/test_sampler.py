"""What the sampler sees of a long study."""

from __future__ import annotations

import datetime

import optuna
import pytest
from optuna.distributions import FloatDistribution

from automl_tl import sampler


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_a_long_study_tpe_sees_the_best_and_the_latest_trials(direction, monkeypatch):
    monkeypatch.setattr(sampler, "BEST", 3)
    monkeypatch.setattr(sampler, "RECENT", 4)
    study = optuna.create_study(direction=direction, sampler=sampler.SeededSampler(0))
    values = [5, 1, 9, 3, 8, 2, 7, 4, 6, 0, 5, 5]
    for value in values:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value if direction == "maximize" else -value)
    running = study.ask()
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    seen = [t.number for t in study.sampler._seen._get_trials(deepcopy=False)]
    assert seen == [2, 4, 6, 8, 9, 10, 11, running.number, 13]
    assert len(study.trials) == 14


def test_it_goes_on_finding_better_points_in_a_long_study():
    """With the good ones a tenth of what is seen, not of the study, fewer than half were good."""

    def objective(trial):
        x = trial.suggest_float("x", -10, 10)
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        return -((x - 2) ** 2) / 20 - abs(trial.suggest_int("n", 0, 9) - 3) / 4 - rate

    study = optuna.create_study(direction="maximize", sampler=sampler.SeededSampler(0))
    study.optimize(objective, 200)
    assert study.best_value > -0.01
    late = [trial.value for trial in study.trials[140:]]
    assert sum(value > -0.3 for value in late) > len(late) * 0.6, late


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_first_trials_are_near_the_best_that_trained_from_what_is_stored(direction, monkeypatch):
    """Depth and augmentation are what activations depend on; all else is changed a little."""
    monkeypatch.setattr(sampler, "RANDOM", 60)
    monkeypatch.setattr(sampler, "NEAR", 61)
    sign = 1 if direction == "maximize" else -1
    best = {
        **{"depth": 0.625, "augmentation": 0.5, "learning_rate": 1e-3, "head_layers": 0},
        **{"dropout": 0.2, "optimizer": "adam", "epochs": 12},
    }

    def objective(trial):
        trial.suggest_float("depth", 0, 1, step=0.125)
        trial.suggest_float("augmentation", 0, 1, step=0.5)
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        trial.suggest_int("head_layers", 0, 2)
        trial.suggest_float("dropout", 0, 0.5, step=0.1)
        trial.suggest_categorical("optimizer", ("adam", "sgd", "adamw"))
        trial.suggest_int("epochs", 6, 20)
        return sign * {0: 0.99, 1: 0.9}.get(trial.number, 0.5)

    def stored(trial):
        return trial.number > 0

    study = optuna.create_study(
        direction=direction, sampler=sampler.SeededSampler(0, stored, stored)
    )
    study.enqueue_trial({**best, "depth": 0.0})
    study.enqueue_trial(best)
    study.optimize(objective, 60)
    early = [trial.params for trial in study.trials[2:]]
    near = [p for p in early if (p["depth"], p["augmentation"]) == (0.625, 0.5)]
    assert len(near) == len(early)
    changed = {name: sum(p[name] != value for p in near) for name, value in best.items()}
    assert changed["optimizer"] < 0.25 * len(near)
    for name in ("learning_rate", "head_layers", "dropout", "epochs", "optimizer"):
        assert 0 < changed[name] < 0.8 * len(near), name
    far = sum(not 1e-4 < p["learning_rate"] < 1e-2 for p in near)
    assert far < 0.1 * len(near)  # one in three at random
    assert all(min(abs(p["dropout"] * 10 - n) for n in range(6)) < 1e-9 for p in near)
    assert len({tuple(p.values()) for p in near}) > 0.8 * len(near)


def test_tpe_takes_over_by_and_by():
    def objective(trial):
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        return -abs(trial.suggest_float("depth", 0, 1, step=0.125) - 0.9)

    def first(trial):
        return trial.number == 0

    study = optuna.create_study(
        direction="maximize", sampler=sampler.SeededSampler(0, first, first)
    )
    study.enqueue_trial({"depth": 0.25})
    study.optimize(objective, 40)
    assert {trial.params["depth"] for trial in study.trials[: sampler.RANDOM + 1]} == {0.25}
    between = [t.params["depth"] for t in study.trials[sampler.RANDOM : sampler.NEAR]]
    assert 2 < sum(depth == 0.25 for depth in between) < len(between) - 2
    late = [trial.params["depth"] for trial in study.trials[sampler.NEAR :]]
    assert sum(depth >= 0.75 for depth in late) > len(late) / 2


def test_where_the_best_is_not_the_cheap_one_both_get_as_much_time(monkeypatch):
    """A whole network that is better, and takes three times as long, is drawn near a quarter."""
    monkeypatch.setattr(sampler, "RANDOM", 10_000)
    monkeypatch.setattr(sampler, "NEAR", 10_001)
    start = datetime.datetime(2026, 1, 1)
    distributions = {
        "depth": FloatDistribution(0, 1, step=0.125),
        "dropout": FloatDistribution(0, 0.5, step=0.1),
    }
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler.SeededSampler(
            0, lambda trial: trial.number > 0, lambda trial: trial.number == 1
        ),
    )
    for depth, value, seconds in ((0.0, 0.99, 1), (0.5, 0.7, 50), (1.0, 0.8, 150)):
        study.add_trial(
            optuna.trial.create_trial(
                params={"depth": depth, "dropout": 0.2},
                distributions=distributions,
                value=value,
            )
        )
        trial = study._storage.get_all_trials(study._study_id, deepcopy=False)[-1]
        trial.datetime_start, trial.datetime_complete = (
            start,
            start + datetime.timedelta(0, seconds),
        )
    drawn = []
    for number in range(3, 203):
        trial = study.ask(distributions)
        drawn.append(trial.params)
        assert trial.number == number
        study.tell(trial, 0.1)
    near = sum(params["depth"] >= 0.75 for params in drawn)
    assert 0.15 * len(drawn) < near < 0.35 * len(drawn)
    assert {params["depth"] for params in drawn} >= {0.5, 0.875, 1.0}  # what is not stored may move
    assert all(params["depth"] == 0.5 for params in drawn if params["depth"] < 0.75)
