"""What the sampler sees of a long study."""

from __future__ import annotations

import optuna
import pytest

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


def test_while_it_draws_at_random_most_trials_train_from_what_is_stored():
    """Depth and augmentation are what activations depend on; all else is drawn anew."""

    def objective(trial):
        trial.suggest_float("depth", 0, 1, step=0.125)
        trial.suggest_float("augmentation", 0, 1, step=0.5)
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        return trial.number

    def stored(trial):
        return trial.number == 1

    study = optuna.create_study(sampler=sampler.SeededSampler(0, stored))
    study.enqueue_trial({"depth": 0.0, "augmentation": 0.5, "learning_rate": 1e-2})
    study.enqueue_trial({"depth": 0.625, "augmentation": 0.5, "learning_rate": 1e-3})
    study.optimize(objective, 60)
    early = study.trials[2 : sampler.RANDOM]
    like = [t for t in early if (t.params["depth"], t.params["augmentation"]) == (0.625, 0.5)]
    assert len(early) / 2 < len(like) < len(early)
    assert len({trial.params["learning_rate"] for trial in early}) == len(early)
    assert len({trial.params["depth"] for trial in study.trials[sampler.RANDOM :]}) > 2
