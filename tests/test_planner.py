from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.cache.store import Store
from automl_tl.errors import TrialError
from automl_tl.layers import at_depth, at_layer
from automl_tl.planner import (
    Limits,
    Outlook,
    Plan,
    Speeds,
    Tap,
    Work,
    frozen_plan,
    head_tap,
    plan,
)
from automl_tl.prospects import Prospects
from automl_tl.speeds import power_of_two, store_speeds
from automl_tl.types import Cut, Layer, NetworkInfo

if TYPE_CHECKING:
    from pathlib import Path

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
MIB = 1024**2
CPU = Speeds(forward=2.0**34)


def plan_of(
    at: int,
    epochs: int = 5,
    augmented: bool = False,
    room: int = GIB,
    memory: int = GIB,
    speeds: Speeds = CPU,
    **outlook: Any,
) -> Plan:
    work = Work(700, 150, at, epochs, augmented)
    head = head_tap(INFO, "avg", 850, room)
    return plan(INFO, work, head, speeds, Limits(room, memory), Outlook(**outlook))


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
    head = head_tap(INFO, "avg", 850, 0)
    assert frozen_plan(head) == Plan(Tap(8, "avg"), None, 0, "head on stored pooled features")


def test_a_flattening_head_needs_the_map_or_the_pixels() -> None:
    assert head_tap(INFO, "flatten", 850, GIB) == Tap(8)
    assert head_tap(INFO, "flatten", 850, 1000) == Tap(0)
    assert frozen_plan(Tap(0)).why == "head on stored pixels"


def test_fine_tuning_starts_at_the_deepest_cut_below() -> None:
    assert plan_of(5).tune == Tap(4)
    assert plan_of(4).tune == Tap(4)
    assert plan_of(3).tune == Tap(2)
    assert plan_of(1).tune == Tap(0)


def test_what_has_no_room_is_not_stored() -> None:
    assert plan_of(5, room=40 * MIB).tune == Tap(4)
    short = plan_of(5, room=MIB)
    assert short.tune == Tap(0)
    assert "needs more than the 1.0 MiB that a trial may store" in {o.note for o in short.options}
    assert plan_of(5, room=MIB, stored=lambda tap: 1.0).tune == Tap(4), "it is there already"


def test_a_fast_device_computes_rather_than_stores_for_one_trial() -> None:
    fast = Speeds(forward=2.0**43)
    assert plan_of(5, speeds=fast).tune == Tap(0)
    assert "storing would take more" in plan_of(5, speeds=fast).why
    slow = Speeds(forward=2.0**43, memory=2.0**50)
    assert plan_of(5, speeds=slow, stored=lambda tap: 1.0).tune == Tap(4)


def test_views_are_stored_where_later_trials_will_read_them() -> None:
    middling = Speeds(forward=2.0**36, write=2.0**27)
    once = plan_of(5, epochs=6, augmented=True, speeds=middling)
    assert (once.tune, once.views) == (Tap(0), 6)
    often = plan_of(5, epochs=6, augmented=True, speeds=middling, later=lambda cut: 5.0)
    assert (often.tune, often.views) == (Tap(4), 6)
    assert "6 views" in often.why
    assert plan_of(5, epochs=6).views == 0
    assert plan_of(5, epochs=6, augmented=True, room=40 * MIB).tune == Tap(0)


def test_what_is_evicted_counts() -> None:
    assert plan_of(5, price=lambda size: 1000.0).tune == Tap(0)
    assert plan_of(5, price=lambda size: size / 1e12).tune == Tap(4)


def test_where_too_little_can_be_evicted_nothing_is_stored() -> None:
    full = plan_of(5, price=lambda size: math.inf)
    assert full.tune == Tap(0)
    assert "the cache is full of what is in use" in {option.note for option in full.options}
    assert all(math.isfinite(option.cost) for option in full.options)
    assert plan_of(5, price=lambda size: math.inf, stored=lambda tap: 1.0).tune == Tap(4)
    asked: list[int] = []
    plan_of(5, price=lambda size: asked.append(size) or 0.0, stored=lambda tap: 0.75)
    sizes = {option.size for option in full.options}
    assert asked
    assert all(4 * size in sizes for size in asked), "what is stored needs no room"


def test_a_stored_shallower_cut_is_better_than_the_pixels() -> None:
    """A deeper cut has no room; the one that is there spares half of the way."""
    deep, shallow = Tap(4), Tap(2)
    found = plan_of(5, room=MIB, stored=lambda tap: float(tap == shallow))
    assert found.tune == shallow
    assert "stored already" in found.why
    derived = plan_of(5, stored=lambda tap: float(tap == shallow))
    assert derived.tune == deep
    fill = {option.tap: option.fill for option in derived.options}
    plain = {option.tap: option.fill for option in plan_of(5).options}
    assert 0 < fill[deep] < plain[deep]


def test_float16_is_for_what_float32_has_no_room_for_and_only_where_it_is_exact() -> None:
    """850 images at cut 4 take 26.6 MiB in float32."""
    assert plan_of(5, room=20 * MIB, halves=lambda cut: True).tune == Tap(4, None, "float16")
    assert plan_of(5, room=20 * MIB, halves=lambda cut: False).tune == Tap(0)
    assert plan_of(5, room=GIB, halves=lambda cut: True).tune == Tap(4)
    disk = Speeds(forward=2.0**34, read=2.0**26)
    for memory in (MIB, 14 * MIB):  # of the 21.9 and 10.9 MiB of the training images
        found = plan_of(5, memory=memory, speeds=disk, halves=lambda cut: True)
        assert found.tune == Tap(4, None, "float16"), memory
    assert plan_of(5, memory=22 * MIB, speeds=disk, halves=lambda cut: True).tune == Tap(4)


def test_the_plan_says_what_it_saves() -> None:
    found = plan_of(5, epochs=50)
    assert found.why.startswith("fine-tuning from activations at layer 4 (26.6 MiB): about ")
    assert " instead of " in found.why
    assert next(option.tap for option in found.options if not option.note) == found.tune


def test_prospects_follow_what_was_seen() -> None:
    spec = SimpleNamespace(
        backbone="a/x",
        image_size=None,
        resize="squash",
        augmentation=0.5,
        flip=True,
        rotation=15.0,
        crop=True,
        colour=True,
    )
    prospects = Prospects(2)
    prospects.left = 10
    first = prospects.later(spec, 4)  # type: ignore[arg-type]
    assert 0 < first < 10
    for number, at in enumerate((7, 5, 2, 5)):
        for _ in range(2):
            prospects.learn(number, {"spec": vars(spec), "fine_tune_at": at, "layers": 8})
    deep, shallow = prospects.later(spec, 4), prospects.later(spec, 2)  # type: ignore[arg-type]
    assert first < deep < shallow < 10
    other = SimpleNamespace(**{**vars(spec), "augmentation": 1.0})
    assert prospects.later(other, 4) < deep  # type: ignore[arg-type]
    prospects.learn(9, {"spec": vars(spec), "fine_tune_at": 8, "layers": 8})
    assert prospects.later(spec, 4) < deep, "a frozen trial reads none"  # type: ignore[arg-type]


def test_speeds_are_measured_once_and_rounded(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    found = store_speeds(store)
    assert set(found) == {"memory", "read", "write"}
    assert all(value == power_of_two(value) > 2**20 for value in found.values())
    monkeypatch.setattr("automl_tl.speeds._measure", lambda root: {})
    assert store_speeds(store) == found
    assert not list(tmp_path.glob(".speed-*"))
