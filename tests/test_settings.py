"""What a person may set of the search space, and the sentences for what nobody can."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pytest

from automl_tl.errors import UsageError
from automl_tl.parameters import PARAMETERS, Choice, Fixed, Range
from automl_tl.settings import domain, parse_setting
from automl_tl.space import Space


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optimizer=sgd", "sgd"),
        ("optimizer=adam, sgd", ["adam", "sgd"]),
        ("learning_rate=1e-4..1e-2", {"low": 1e-4, "high": 1e-2}),
        ("head_units=[4096,4096]", [4096, 4096]),
        ("head_units=[[256],[512,64]]", [[256], [512, 64]]),
        ("fine_tune_at=block4_pool", "block4_pool"),
        ("fine_tune_at=100", 100),
        ("fine_tune_at=0.7", 0.7),
        ("flip=False", False),
        ("epochs=3", 3),
    ],
)
def test_settings_are_read(text: str, value: object) -> None:
    assert parse_setting(text) == (text.partition("=")[0], value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs", "expected NAME=VALUE, got 'epochs'"),
        ("=3", "expected NAME=VALUE"),
        ("learning_rte=1", "did you mean learning_rate?"),
        ("zzz=1", "there are depth, fine_tune_at"),
        ("optimizer=adm", "expected one of adam, adamw, sgd, rmsprop, adagrad, got 'adm'"),
        ("epochs=0", "expected a whole number from 1 to"),
        ("epochs=2.5", "expected a whole number, got 2.5"),
        ("depth=1.5", "expected a number from 0 to 1, got 1.5"),
        ("dropout=nan", "expected a number, got nan"),
        ("learning_rate=fast", "expected a number, got 'fast'"),
        ("epochs=9..3", "low < high, got 9..3: exchange them"),
        ("learning_rate=1e-3..1e-3", "got 0.001..0.001: for one value, give 0.001 alone"),
        ("optimizer=1..3", "expected a value or a list of values, got a range"),
        ("image_size=32..64", "image_size: expected a value or a list of values, got a range"),
        ("head_units=[a]", "expected a JSON list"),
        ("flip=maybe", "expected true or false"),
        ("fine_tune_at=-1", "expected 0 or more"),
        ("label_smoothing=[]", "at least one value"),
    ],
)
def test_wrong_settings_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_setting(text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("dropout", {"step": 0}, "dropout: expected as step a number from 1e-12, got 0."),
        ("dropout", {"step": -0.1}, "got -0.1"),
        ("dropout", {"step": "x"}, "got 'x'"),
        ("dropout", {"step": True}, "got True"),
        ("dropout", {"step": float("nan")}, "got nan"),
        ("dropout", {"step": float("inf")}, "got inf"),
        ("dropout", {"step": 0.7}, "expected a step of at most 0.5, got 0.7"),
        ("dropout", {"log": "yes"}, "expected log to be true or false, got 'yes'"),
        ("epochs", {"low": 2, "high": 8, "step": 0.5}, "a whole number from 1, got 0.5"),
        ("epochs", {"low": 2, "high": 8, "step": 2, "log": True}, "logarithmic or has a step"),
    ],
)
def test_wrong_ranges_get_one_sentence(name: str, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        domain(name, {"low": 0.0, "high": 0.5, **more})
    assert sentence in str(error.value)
    assert str(error.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "given", "highest"),
    [
        ("depth", {"low": 0, "high": 0.2}, 0.125),
        ("dropout", {"low": 0, "high": 0.3}, 0.3),
        ("dropout", {"low": 1 / 3, "high": 0.69}, 0.6333333333333333),
        ("dropout", {"low": 0.1, "high": 0.3, "step": 0.2}, 0.3),
        ("label_smoothing", {"low": 0, "high": 0.19}, 0.15),
        ("epochs", {"low": 2, "high": 9, "step": 3}, 8),
        ("learning_rate", {"low": 0.001, "high": 0.01, "step": 0.002}, 0.009),
    ],
)
def test_a_range_ends_on_its_grid(name: str, given: dict[str, Any], highest: float) -> None:
    """So that what is tried first lies in it, and Optuna has nothing to adjust."""
    found = domain(name, given)
    assert isinstance(found, Range) and found.high == highest
    space = Space(("a/x",), {"depth": 1.0, name: given})
    study = optuna.create_study()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for params in (*space.probes(), *space.tuned(["a/x"])):
            study.enqueue_trial(params)
            spec = space.suggest(trial := study.ask())
            assert trial.params[name] == params[name] == getattr(spec, name)


def test_a_default_step_that_is_wider_than_the_range_gives_way() -> None:
    continuous = Range(0.0, 0.1, preferred=0.5)
    assert domain("depth", {"low": 0, "high": 0.1}) == continuous
    assert domain("depth", {"low": 0, "high": 0.1, "step": None}) == continuous


def test_every_default_is_a_legal_setting() -> None:
    for name, parameter in PARAMETERS.items():
        default = parameter.default
        if isinstance(default, Choice):
            assert domain(name, list(default.options)) is not None
        elif isinstance(default, Range):
            assert isinstance(domain(name, {"low": default.low, "high": default.high}), Range)
        elif default.value is not None:
            assert domain(name, default.value) == Fixed(default.value)
