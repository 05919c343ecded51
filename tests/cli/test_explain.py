"""What ``--explain`` says of a plan."""

from __future__ import annotations

from typing import Any

from automl_tl.cli.explain import SHOWN, explaining, plan
from automl_tl.planner import Limits, Outlook, Speeds, Work, frozen_plan, head_tap
from automl_tl.planner import plan as decide
from automl_tl.types import Cut, Layer, NetworkInfo

CUTS = [Cut(0, (32, 32, 3), 0), *(Cut(i, (64, 16, 16), i * 10**7) for i in range(1, 11))]
INFO = NetworkInfo(tuple(Layer(f"l{i}", "Conv", 9) for i in range(10)), tuple(CUTS), 64, "1")


def event(at: int, room: int = 2**30) -> dict[str, Any]:
    head = head_tap(INFO, "avg", 850, room)
    work = Work(700, 150, at, 5, augmented=False)
    found = frozen_plan(head)
    if at < 10:
        found = decide(INFO, work, head, Speeds(2.0**34), Limits(room, 2**30), Outlook())
    facts = {"event": "trial_started", "number": 3, "backbone": "a/x", "plan": found.why}
    return {**facts, "options": found.table()}


def test_the_chosen_place_the_next_best_and_the_pixels_are_listed() -> None:
    lines = plan(event(8)).splitlines()
    assert lines[0].startswith("Trial 3, a/x: fine-tuning from activations at layer 8 (53.1 MiB)")
    assert lines[1].startswith("> layer 8: 53.1 MiB, storing ")
    assert "; float32 fits" not in lines[1]
    assert sum(line.startswith(">") for line in lines) == 1
    assert any("pixels: layers below in every epoch" in line for line in lines)
    assert lines[-1] == f"  and {2 * 8 + 1 - SHOWN - (len(lines) - SHOWN - 2)} more"


def test_what_is_out_of_the_question_says_why() -> None:
    text = plan(event(2, room=1000))
    assert "> pixels" in text
    assert "needs more than the 1000 B that a trial may store" in text


def test_a_frozen_trial_needs_no_list() -> None:
    assert plan(event(10)) == "Trial 3, a/x: head on stored pooled features."


def test_notes_follow_the_events() -> None:
    heard: list[dict[str, Any]] = []
    tell = explaining(heard.append)  # type: ignore[arg-type]
    tell({"event": "epoch", "number": 3})
    tell(event(10))
    assert [one["event"] for one in heard] == ["epoch", "trial_started", "note"]
