"""The trials that a space proposes, and those that it begins with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from automl_tl.errors import UsageError
from automl_tl.space import Space, TrialSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKBONES = ("a/x", "b/y")


def draw(space: Space, seed: int = 0) -> tuple[TrialSpec, dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    spec = space.suggest(trial)
    return spec, trial.params


def test_depth_and_fine_tune_at_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        Space(BACKBONES, {"depth": 0.5, "fine_tune_at": 3})


def test_a_study_begins_with_what_its_user_says() -> None:
    first = [
        {"backbone": "b/y", "learning_rate": 5e-3, "head_units": 100, "optimizer": "sgd"},
        {"backbone": "a/x", "depth": 0.5},
        {"backbone": "a/x", "depth": 0.5},
    ]
    space = Space(BACKBONES, {"label_smoothing": 0.1}, first=first)
    one, two = space.probes()
    assert (one["backbone"], one["learning_rate"], one["optimizer"]) == ("b/y", 5e-3, "sgd")
    assert (one["head_layers"], one["head_units"], one["batch_size"]) == (1, 100, 32)
    assert (two["backbone"], two["depth"], two["head_layers"]) == ("a/x", 0.5, 0)
    assert space.tuned(BACKBONES) == []
    study = optuna.create_study()
    study.enqueue_trial(one)
    spec = space.suggest(study.ask())
    assert (spec.backbone, spec.head_units, spec.label_smoothing) == ("b/y", (100,), 0.1)


@pytest.mark.parametrize(
    ("settings", "trial", "sentence"),
    [
        ({}, {"droput": 0.1}, "did you mean dropout?"),
        ({}, {"dropout": 0.25}, "(0 to 0.5, in steps of 0.1), got 0.25"),
        ({}, {"dropout": [0.1, 0.2]}, "expected one value, got [0.1, 0.2]"),
        ({}, {"learning_rate": 0.5}, "(0.0001 to 0.03, logarithmic), got 0.5"),
        ({}, {"batch_size": 48}, "(16, 32, 64), got 48"),
        ({}, {"batch_size": "many"}, "expected a whole number, got 'many'"),
        ({}, {"image_size": 96}, "(only its default), got 96"),
        ({}, {"head_units": [256, 64]}, "64 to 1024, logarithmic"),
        ({"epochs": 5}, {"epochs": 6}, "(always 5), got 6: change it, or what is searched, with"),
        ({"fine_tune_at": [3, "none"]}, {"depth": 0.5}, "depth: expected fine_tune_at"),
        ({}, {"backbone": "a/z"}, "backbone: expected one of a/x, got 'a/z'"),
    ],
)
def test_a_trial_to_begin_with_lies_in_the_space(
    settings: dict[str, Any], trial: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as error:
        Space(("a/x",), settings, first=[{}, trial])
    assert str(error.value).startswith("Trial 2 of those to begin with: ")
    assert sentence in str(error.value)


@pytest.mark.parametrize(("units", "layers"), [([], 0), ([96], 1), ([96, 96], 2)])
def test_the_parameters_of_a_trial_can_be_begun_with(units: list[int], layers: int) -> None:
    study = optuna.create_study()
    space = Space(("a/x",), {}, first=[{"head_units": units, "learning_rate": 5e-3}])
    (found,) = space.probes()
    assert found["head_layers"] == layers
    study.enqueue_trial(found)
    spec = space.suggest(study.ask())
    assert (spec.head_units, spec.learning_rate) == (tuple(units), 5e-3)


def test_lists_of_layers_can_be_begun_with() -> None:
    space = Space(("a/x",), {"head_units": [[256], [512, 64]]}, first=[{"head_units": [512, 64]}])
    study = optuna.create_study()
    study.enqueue_trial(space.probes()[0])
    assert space.suggest(study.ask()).head_units == (512, 64)


def test_a_fixed_parameter_is_not_drawn_and_a_frozen_trial_draws_nothing_of_fine_tuning() -> None:
    spec, params = draw(Space(BACKBONES, {"depth": 0, "optimizer": "sgd"}))
    assert spec.frozen
    assert spec.optimizer == "sgd"
    assert not {"depth", "optimizer", "fine_tune_factor", "augmentation"} & set(params)
    assert (spec.augmentation, spec.fine_tune_factor) == (0.0, 1.0)


def test_fine_tuning_may_have_an_optimizer_of_its_own() -> None:
    settings = {"fine_tune_at": [100, "none"], "fine_tune_optimizer": ["same", "sgd"]}
    specs = {
        (spec.frozen, spec.fine_tune_optimizer)
        for spec, _ in (draw(Space(("a/x",), settings), seed) for seed in range(20))
    }
    assert specs == {(True, "same"), (False, "same"), (False, "sgd")}


def test_trials_that_were_recorded_before_it_had_one_optimizer() -> None:
    spec, _ = draw(Space(("a/x",), {"depth": 0.5}))
    recorded = asdict(spec)
    assert TrialSpec.of(recorded) == spec
    for name in ("fine_tune_optimizer", "rotation", "crop", "colour"):
        del recorded[name]
    assert TrialSpec.of(recorded) == spec


def test_a_single_backbone_is_not_drawn() -> None:
    spec, params = draw(Space(("a/x",), {}))
    assert spec.backbone == "a/x"
    assert "backbone" not in params


@pytest.mark.parametrize(
    ("setting", "units"),
    [([4096, 4096], (4096, 4096)), (256, (256,)), ([], ())],
)
def test_head_units_fix_the_whole_head(setting: object, units: tuple[int, ...]) -> None:
    assert draw(Space(("a/x",), {"head_units": setting}))[0].head_units == units


def test_head_units_of_several_stacks_are_searched() -> None:
    space = Space(("a/x",), {"head_units": [[256], [512, 64]]})
    assert {draw(space, seed)[0].head_units for seed in range(20)} == {(256,), (512, 64)}


def test_every_draw_stays_within_its_domain() -> None:
    space = Space(BACKBONES, {"learning_rate": {"low": 1e-3, "high": 2e-3}})
    for seed in range(50):
        spec, _ = draw(space, seed)
        assert 1e-3 <= spec.learning_rate <= 2e-3
        assert spec.depth is not None
        assert spec.depth * 8 == int(spec.depth * 8)
        assert all(64 <= width <= 1024 for width in spec.head_units)


def test_every_backbone_is_probed_and_the_best_are_tuned_within_the_space() -> None:
    space = Space(BACKBONES, {"learning_rate": {"low": 1e-4, "high": 1e-3}, "batch_size": [8, 16]})
    tuned = space.tuned(["b/y", "a/x"])
    found = [*space.probes(), *tuned, *space.deeper(tuned[-1])]
    assert [(p["backbone"], p["depth"]) for p in found] == [
        ("a/x", 0.0),
        ("b/y", 0.0),
        ("b/y", 0.25),
        ("b/y", 0.5),
        ("a/x", 0.5),
        ("a/x", 1.0),
    ]
    assert space.deeper(tuned[0]) == []
    assert [space.backbone(p) for p in found] == [p["backbone"] for p in found]
    assert {p["learning_rate"] for p in found} == {1e-3}
    assert {p["batch_size"] for p in found} == {16}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"depth": [0.0, 0.5, 1.0]}, [0.0, 0.5]),
        ({"depth": [0.0, 0.75]}, [0.0, 0.0, 0.75]),
        ({"depth": [0.125, 1.0]}, [0.125, 0.125, 1.0]),
        ({"learning_rate": [1e-4, 2e-2]}, [2e-2, 2e-2, 2e-2]),
        ({"augmentation": [1.0, 0.5]}, [None, 0.5, 0.5]),
        ({"epochs": [2, 9, 40]}, [9, 9, 9]),
        ({"optimizer": ["sgd", "adam"]}, ["adam", "adam", "adam"]),
        ({"schedule": ["constant", "cosine"]}, ["constant", "constant", "constant"]),
    ],
)
def test_of_listed_values_the_first_trials_have_the_closest(
    setting: dict[str, Any], expected: list[Any]
) -> None:
    """The probe, the quarter and the half; what is equal comes once."""
    (name,) = setting
    space = Space(("a/x",), setting)
    found = [*space.probes(), *space.tuned(["a/x"])]
    assert [params.get(name) for params in found] == expected


def test_what_a_probe_was_is_not_tried_again() -> None:
    fixed = Space(("a/x",), {"depth": 0.0, "learning_rate": 1e-3})
    (probe,) = fixed.probes()
    assert "backbone" not in probe
    assert fixed.backbone(probe) == "a/x"
    assert fixed.tuned(["a/x"]) == []


def test_enqueued_baselines_come_out_as_they_went_in() -> None:
    space = Space(BACKBONES, {})
    study = optuna.create_study()
    tuned = space.tuned(BACKBONES)
    baselines = [*space.probes(), *tuned, *space.deeper(tuned[-1])]
    for params in baselines:
        study.enqueue_trial(params)
    for params in baselines:
        trial = study.ask()
        spec = space.suggest(trial)
        assert (spec.backbone, spec.depth) == (params["backbone"], params["depth"])
        assert spec.learning_rate == params["learning_rate"]


def test_a_plugin_narrows_a_backbone_and_the_user_wins() -> None:
    narrowed: Mapping[str, Mapping[str, Any]] = {
        "a/x": {"learning_rate": {"low": 1e-5, "high": 1e-4}, "epochs": 3}
    }
    space = Space(("a/x",), {"epochs": 7}, narrowed)
    spec, params = draw(space)
    assert spec.learning_rate <= 1e-4
    assert spec.epochs == 7
    assert "learning_rate@a/x" in params
    assert space.probes()[0]["learning_rate@a/x"] == 1e-4


def test_of_many_backbones_a_few_are_probed_and_fewer_tuned() -> None:
    space = Space(tuple(f"a/{number:02d}" for number in range(80)), {})
    found = space.probes()
    assert len(found) == 8
    assert {params["depth"] for params in found} == {0.0}
    tuned = space.tuned([space.backbone(params) for params in reversed(found)])
    found = [(params["backbone"], params["depth"]) for params in tuned]
    rest = [(backbone, 0.5) for backbone in ("a/60", "a/50", "a/40")]
    assert found == [("a/70", 0.25), ("a/70", 0.5), *rest]


def test_the_best_is_tuned_as_deep_as_the_space_allows() -> None:
    for depth, deepest in (({"low": 0.0, "high": 0.75}, [0.25, 0.5, 0.75]), (0.25, [0.25] * 2)):
        space = Space(BACKBONES, {"depth": depth})
        tuned = space.tuned(["a/x"])
        tuned += space.deeper(tuned[-1])
        assert [params.get("depth", 0.25) for params in tuned] == deepest
        assert [p["augmentation"] for p in tuned] == [*(0.0 for _ in deepest[1:]), 0.5]


def test_a_space_knows_that_networks_stay_frozen() -> None:
    narrowed = {"a/x": {"depth": 0.0}}
    for settings, plugins, frozen in (
        ({}, {}, False),
        ({"depth": 0.0}, {}, True),
        ({"depth": {"low": 0.0, "high": 0.5}}, {}, False),
        ({"fine_tune_at": "none"}, {}, True),
        ({"fine_tune_at": ["none", "all"]}, {}, False),
        ({"fine_tune_at": "all"}, {"a/x": {"depth": 0.0}}, False),
        ({}, narrowed, False),
        ({}, {**narrowed, "b/y": {"fine_tune_at": "none"}}, True),
    ):
        assert Space(BACKBONES, settings, plugins).frozen == frozen, (settings, plugins)


@pytest.mark.parametrize(
    ("settings", "one"),
    [
        ({}, True),
        ({"depth": 0.5}, False),
        ({"image_size": [32, 64]}, False),
        ({"pooling": ["avg", "max"]}, False),
        ({"pooling": "max", "image_size": 64}, True),
        ({"pooling": "flatten"}, False),
    ],
)
def test_one_pass_is_enough_where_all_heads_see_the_same(
    settings: dict[str, Any], one: bool
) -> None:
    assert Space(("torch/a",), {"depth": 0, **settings}).one_pass is one
    assert not Space(("torch/a", "torch/b"), {"depth": 0, **settings}).one_pass
