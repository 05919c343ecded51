"""Which models a worker keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import optuna
import pytest

from automl_tl.facts import FACTS
from automl_tl.keeper import Keeper
from automl_tl.ledger import Ledger
from automl_tl.study import KEEP_MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = {"backbone": "torch/x", "image_size": 8, "resize": "squash"}


@pytest.fixture
def keeps() -> Callable[[int, float], bool]:
    """Return whether the model of a trial is kept, beside trials 1 to 3 of value 0.5."""
    study = optuna.create_study(direction="maximize")
    study.ask()  # 0 still runs
    for _ in range(KEEP_MODELS):
        trial = study.ask()
        trial.set_user_attr(FACTS, {"spec": SPEC})
        study.tell(trial, 0.5)
    config = SimpleNamespace(metric="accuracy", artifacts=None)
    ledger = Ledger(study)
    ledger.look()
    keeper = Keeper(SimpleNamespace(config=config), None, ledger)
    return keeper._among_the_best


def test_of_equal_trials_the_models_of_the_earlier_are_kept(keeps) -> None:
    assert keeps(0, 0.5)  # it ranks first, although it finished last
    assert not keeps(4, 0.5)
    assert keeps(4, 0.6)
    assert not keeps(0, 0.4)


def test_twins_push_no_model_out() -> None:
    study = optuna.create_study(direction="maximize")
    for value, facts in (
        (0.9, {}),
        *[(0.9, {"twin_of": 0})] * KEEP_MODELS,
        *((0.1 * n, {}) for n in range(5)),
    ):
        trial = study.ask()
        trial.set_user_attr(FACTS, {"spec": SPEC, **facts})
        study.tell(trial, value)
    kept: list[int] = []
    config = SimpleNamespace(metric="accuracy", artifacts=None)
    directory = SimpleNamespace(config=config, keep_models=kept.extend)
    ledger = Ledger(study)
    ledger.look()
    keeper = Keeper(directory, None, ledger)
    keeper.let_go()
    assert kept == [0, 8, 7]
    assert keeper._among_the_best(9, 0.35) and not keeper._among_the_best(9, 0.3)
