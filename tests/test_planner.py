from __future__ import annotations

import pytest

from automl_tl.errors import TrialError
from automl_tl.layers import at_depth, at_layer
from automl_tl.planner import Plan, Rates, Tap, Work, plan
from automl_tl.types import Cut, Layer, NetworkInfo

INFO = NetworkInfo(
    layers=tuple(
        Layer(f"block{i}.{kind}", kind, 100 if kind == "conv" else 0)
        for i in range(4)
        for kind in ("conv", "relu")
    ),
    cuts=(
        Cut(0, (32, 32, 3), 0),
        Cut(2, (16, 32, 32), 10_000_000),
        Cut(4, (32, 16, 16), 20_000_000),
        Cut(8, (64, 8, 8), 40_000_000),
    ),
    features=64,
    version="1",
)
GIB = 1024**3


def work(at: int, epochs: int = 5, pooling: str = "avg", augmented: bool = False) -> Work:
    return Work(700, 150, at, pooling, epochs if at < 8 else 0, augmented)  # type: ignore[arg-type]


def plan_of(work: Work, room: int = GIB, flops: float = 2e10) -> Plan:
    return plan(INFO, work, room, Rates(flops=flops))


@pytest.mark.parametrize(
    ("depth", "index"),
    [(0.0, 8), (0.125, 4), (0.25, 4), (0.5, 4), (0.51, 2), (0.75, 2), (1.0, 0)],
)
def test_depth_is_the_share_of_layers_with_weights_snapped_to_a_cut(
    depth: float, index: int
) -> None:
    assert at_depth(INFO, depth) == index


@pytest.mark.parametrize(
    ("at", "index"),
    [("all", 0), ("none", 8), ("block2.conv", 4), (3, 3), (0, 0), (8, 8), (0.5, 4), (1.0, 8)],
)
def test_layers_are_named_as_people_do(at: float | str, index: int) -> None:
    assert at_layer(INFO, at, "a/x") == index


@pytest.mark.parametrize(
    ("at", "sentence"),
    [
        ("block2.con", "did you mean block2.conv"),
        (9, "expected 0 to 8 for the 8 layers of a/x, got 9"),
        (1.5, "expected 0 to 8"),
    ],
)
def test_an_unknown_layer_gets_one_sentence(at: float | str, sentence: str) -> None:
    with pytest.raises(TrialError) as error:
        at_layer(INFO, at, "a/x")
    assert sentence in str(error.value)


def test_a_frozen_trial_needs_pooled_features_only() -> None:
    assert plan_of(work(8)) == Plan(Tap(8, "avg"), None, 0, "head on stored pooled features")


def test_a_flattening_head_needs_the_map_or_the_pixels() -> None:
    assert plan_of(work(8, pooling="flatten")).head == Tap(8)
    assert plan_of(work(8, pooling="flatten"), room=1000).head == Tap(0)


def test_fine_tuning_starts_at_the_deepest_cut_below() -> None:
    assert plan_of(work(5)).tune == Tap(4)
    assert plan_of(work(4)).tune == Tap(4)
    assert plan_of(work(3)).tune == Tap(2)
    assert plan_of(work(1)).tune == Tap(0)


def test_what_has_no_room_is_not_stored() -> None:
    assert plan_of(work(5), room=40 * 1024**2).tune == Tap(4)
    assert plan_of(work(5), room=1024**2).tune == Tap(0)


def test_a_fast_device_prefers_pixels_to_reading_large_activations() -> None:
    assert plan_of(work(5), flops=1e13).tune == Tap(0)


def test_augmentation_gets_a_view_an_epoch() -> None:
    assert plan_of(work(5, epochs=6, augmented=True)).views == 6
    assert plan_of(work(5, epochs=6)).views == 0
    assert plan_of(work(5, epochs=6, augmented=True), room=40 * 1024**2).tune == Tap(0)
