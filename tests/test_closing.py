"""The end of a search: the test split, and whole models of what is kept."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from automl_tl import closing, kept
from automl_tl.closing import Closing
from automl_tl.facts import FACTS
from automl_tl.last_look import last_look
from automl_tl.ledger import Ledger
from automl_tl.study import StudyDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Crew:
    """One worker, which says these events and then nothing."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = [(0, event) for event in events]

    def send(self, index: int, message: dict[str, Any]) -> None:
        assert message == {"do": "finish", "trial": 7}

    def poll(self, timeout: float) -> list[tuple[int, dict[str, Any]]]:
        if not self.events:
            time.sleep(timeout)
        said, self.events = self.events[:1], self.events[1:]
        return said


def look(*events: dict[str, Any], seconds: float = 1.0, hurried: bool = False) -> list[str]:
    """Return what a person is warned of when a worker says this."""
    told: list[dict[str, Any]] = []
    end = time.monotonic() + seconds
    last_look(Crew(*events), 0, 7, end, lambda: hurried, told.append)
    return [event["text"] for event in told if event["event"] == "warning"]


@pytest.fixture
def close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Close a study of one trial; returns what the worker says."""
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.set_user_attr(FACTS, {"spec": {"backbone": "torch/x"}})
    study.tell(trial, 0.5)
    ledger = Ledger(study)
    ledger.look()
    directory = StudyDirectory(tmp_path, SimpleNamespace(artifacts=None))  # type: ignore[arg-type]
    said: list[dict[str, Any]] = []
    nothing: Any = None
    worker = Closing(
        *(directory, nothing, nothing, nothing, ledger, nothing),
        lambda backend: nothing,
        nothing,
        lambda event, **facts: said.append({"event": event, **facts}),
    )
    monkeypatch.setattr(closing, "bring", lambda directory, study: None)

    def close() -> list[dict[str, Any]]:
        worker.finish(0)
        return said

    return close


def test_a_model_that_is_gone_is_said_with_the_way_on(close) -> None:
    warning, *_ = close()
    assert warning["text"].startswith("The test split was not evaluated: the model of trial 0 is ")
    assert "model.safetensors back, or search further with `automl-tl resume`" in warning["text"]
    assert "Errno" not in warning["text"]


def test_the_test_split_is_told_before_whole_models_are_written(
    close, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Closing, "_test", lambda self, number: None)
    monkeypatch.setattr(kept, "model_file", lambda directory, number: tmp_path)
    monkeypatch.setattr(closing.Closing, "_whole", lambda self, number: self._say("whole"))
    assert [said["event"] for said in close()] == ["tested", "whole", "closed"]


def test_a_test_that_came_in_time_is_not_missed() -> None:
    assert look({"event": "tested"}, seconds=0.3) == []
    assert look({"event": "idle"}, seconds=0.3) == [
        "The test split was not evaluated in time; `automl-tl resume` does it."
    ]
    assert len(look({"event": "closed"}, hurried=True)) == 1


def test_what_keeps_the_test_split_from_being_evaluated_is_said() -> None:
    died = {"event": "died", "reason": "killed by SIGKILL"}
    assert look(died) == ["The test split was not evaluated: killed by SIGKILL."]
    assert look({"event": "tested"}, died) == []
    began = time.monotonic()
    assert look({"event": "tested"}, {"event": "closed"}, seconds=60) == []
    assert time.monotonic() - began < 10
