"""Trials that were tried before are found by their spec."""

from __future__ import annotations

import json
from typing import Any

from automl_tl.twins import Twins

SPEC: dict[str, Any] = {"backbone": "torch/tiny", "head_units": (64, 32), "learning_rate": 0.1}


def _facts(stopped: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return facts as they come back from a storage."""
    facts: dict[str, Any] = json.loads(json.dumps({"spec": SPEC | changes, "stopped": stopped}))
    return facts


def test_the_first_of_the_same_spec_is_found() -> None:
    twins = Twins()
    assert twins.of(SPEC) is None
    twins.learn(3, _facts())
    twins.learn(5, _facts())
    assert twins.of(SPEC) == 3
    assert twins.of(dict(reversed(SPEC.items()))) == 3
    assert twins.of(SPEC | {"learning_rate": 0.1 + 1e-12}) is None
    assert twins.of(SPEC | {"head_units": (64,)}) is None


def test_a_trial_that_was_stopped_is_nobodys_twin() -> None:
    twins = Twins()
    twins.learn(0, _facts(stopped="the time is up"))
    assert twins.of(SPEC) is None
    twins.learn(1, _facts())
    assert twins.of(SPEC) == 1


def test_a_trial_that_lost_its_facts_has_no_twins() -> None:
    twins = Twins()
    twins.learn(0, {"reason": "its worker was silent for too long", "retried": True})
    assert twins.of(SPEC) is None


def test_a_trial_is_read_once() -> None:
    twins = Twins()
    twins.learn(0, _facts())
    twins.learn(0, _facts(learning_rate=0.2))
    assert twins.of(SPEC | {"learning_rate": 0.2}) is None


def test_a_twin_has_no_twins() -> None:
    twins = Twins()
    twins.learn(0, {**_facts(), "twin_of": 1})
    assert twins.of(SPEC) is None
    twins.learn(1, _facts())
    assert twins.of(SPEC) == 1
