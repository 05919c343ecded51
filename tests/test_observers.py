"""Observers: who is told what, and that none of them can stop a search."""

from __future__ import annotations

import json
import os
import time
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from automl_tl import observe, plugins
from automl_tl.errors import UsageError
from automl_tl.guard import alone
from automl_tl.hookspecs import hookimpl
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.types import EpochReport
from tests.commandline import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = EpochReport("warm-up", 0, 2, 0.5, np.zeros((1, 2), np.float32), 0.01, 0.1)
STRANGER = """
import json
from automl_tl.hookspecs import hookimpl

def note(event, **facts):
    with (event.directory / "seen.jsonl").open("a") as file:
        file.write(json.dumps({"number": event.number, "metric": event.metric, **facts}) + "\\n")

@hookimpl
def automl_tl_epoch_finished(epoch):
    note(epoch, phase=epoch.phase, epoch=epoch.epoch, epochs=epoch.epochs, value=epoch.value,
         loss=epoch.train_loss, rate=epoch.learning_rate)

@hookimpl
def automl_tl_trial_finished(trial):
    note(trial, state=trial.state, value=trial.value, spec=trial.attributes["spec"])
    raise OSError("disk full")
"""


class Hears:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    @hookimpl
    def automl_tl_epoch_finished(self, epoch: Any) -> None:
        self.heard.append(epoch)

    @hookimpl
    def automl_tl_trial_finished(self, trial: Any) -> None:
        self.heard.append(trial)


class Breaks:
    @hookimpl
    def automl_tl_epoch_finished(self) -> None:
        raise ValueError("no disk\nat all")


class Hangs:
    @hookimpl
    def automl_tl_epoch_finished(self) -> None:
        time.sleep(20)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four observers, by name; nothing else observes."""
    found = plugins.discover()
    mine: dict[str, Any] = {"one": Hears(), "two": Hears(), "breaks": Breaks(), "hangs": Hangs()}
    for name, plugin in mine.items():
        found.manager.register(plugin, name)
    found.observers = set(mine)
    monkeypatch.setattr(observe, "get_plugins", lambda: found)
    return mine


def study(path: Path, *log: str) -> StudyDirectory:
    config = Config(
        "s", "digits", ("torch/tiny",), {"torch/tiny": "none"}, metric="macro_f1", log=log
    )
    labels = np.zeros(1, np.int64)
    data = StudyData(("a",), ("a/0",), labels, ("train",), ("0",), "0", {})
    StudyDirectory.create(path, config, data)
    return StudyDirectory.open(path)


def test_only_the_named_observer_hears_everything_in_order(
    installed: dict[str, Any], tmp_path: Path
) -> None:
    warned: list[str] = []
    observers = observe.Observers(study(tmp_path / "s", "one"), warned.append)
    for value in (0.25, 0.75):
        observers.epoch(7, EPOCH, value)
    observers.trial(7, "complete", 0.75, {"depth": 0}, {"epochs": 2})
    observers.wait(float("inf"))
    first, second, trial = installed["one"].heard
    assert (first.value, second.value, trial.value) == (0.25, 0.75, 0.75)
    assert (first.study, first.directory, first.number) == ("s", tmp_path / "s", 7)
    assert (first.metric, first.phase, first.train_loss) == ("macro_f1", "warm-up", 0.5)
    assert (trial.metric, trial.state, trial.params) == ("macro_f1", "complete", {"depth": 0})
    assert installed["two"].heard == []
    assert warned == []


def test_a_broken_observer_is_named_once_and_the_others_go_on(
    installed: dict[str, Any], tmp_path: Path
) -> None:
    warned: list[str] = []
    observers = observe.Observers(study(tmp_path / "s", "breaks", "one"), warned.append)
    for _ in range(3):
        observers.epoch(0, EPOCH, 0.5)
    observers.wait(float("inf"))
    assert warned == ["Plugin breaks: automl_tl_epoch_finished failed: ValueError: no disk"]
    assert len(installed["one"].heard) == 3


def test_an_observer_that_hangs_is_dropped(
    installed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "PATIENCE", 0.2)
    monkeypatch.setattr(observe, "LEAST", 0.1)
    warned: list[str] = []
    observers = observe.Observers(study(tmp_path / "s", "hangs", "one"), warned.append)
    started = time.monotonic()
    for deadline in (float("inf"), started, started):
        observers.epoch(0, EPOCH, 0.5)
        observers.wait(deadline)
    assert time.monotonic() - started < 5
    (warning,) = warned
    assert warning.startswith("Plugin hangs: it is told nothing more")
    assert len(installed["one"].heard) == 3


def test_an_observer_that_is_gone_is_named(installed: dict[str, Any], tmp_path: Path) -> None:
    warned: list[str] = []
    observers = observe.Observers(study(tmp_path / "s", "tensorboard", "one"), warned.append)
    observers.epoch(0, EPOCH, 0.5)
    observers.wait(float("inf"))
    (warning,) = warned
    assert warning.startswith("Unknown observer 'tensorboard': there are breaks, hangs, one, two.")
    assert warning.endswith("`pip install 'automl-tl[tensorboard]'` installs it.")
    assert len(installed["one"].heard) == 1


def test_an_unknown_observer_is_refused_before_any_work(cli: CommandLine) -> None:
    error = cli.run("search", "digits", "--log", "tensorbord", code=2)
    assert "Unknown observer 'tensorbord': did you mean tensorboard?" in error
    assert not (cli.folder / "studies").exists()


def test_observers_are_added_when_a_study_is_resumed(cli: CommandLine) -> None:
    pytest.importorskip("automl_tl_tensorboard")
    fixed = ("--backbone", "torch/tiny", "--set", "epochs=1", "--set", "depth=0")
    quick = (*fixed, "--set", "warmup_epochs=1")
    cli.run("search", "digits", "--study", "s", "--trials", "1", *quick)
    folder = cli.folder / "studies" / "s"
    before = (folder / "study.toml").read_text(encoding="utf-8")
    error = cli.run("resume", "s", "--trials", "2", "--log", "tensorbord", code=2)
    assert "Unknown observer 'tensorbord': did you mean tensorboard?" in error
    assert (folder / "study.toml").read_text(encoding="utf-8") == before
    with alone(folder):
        error = cli.run("resume", "s", "--trials", "2", "--log", "tensorboard", code=2)
    assert "Another search is at work" in error
    assert (folder / "study.toml").read_text(encoding="utf-8") == before

    cli.run("resume", "s", "--trials", "2", "--log", "tensorboard")
    assert StudyDirectory.open(folder).config.log == ("tensorboard",)
    runs = {path.parent.name for path in (folder / "tensorboard").rglob("*tfevents*")}
    assert len(runs) == 1, "the trial that was finished before is not told of"
    cli.run("resume", "s", "--trials", "3", "--log", "tensorboard")
    assert StudyDirectory.open(folder).config.log == ("tensorboard",)
    changed = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    assert changed == {**tomllib.loads(before), "log": ["tensorboard"]}


def test_a_plugin_that_observes_says_so() -> None:
    found = plugins.discover()
    listed = {one.name: one.provides for one in found.listing}
    assert listed["tensorboard"] == {"observers": ["tensorboard"]}
    with pytest.raises(UsageError, match="Unknown observer 'torch'"):
        found.observer("torch")


def test_a_strangers_observer_follows_a_study_and_its_resumption(
    tmp_path: Path, cache: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    meta = site / "stranger-1.0.dist-info"
    meta.mkdir(parents=True)
    (site / "stranger.py").write_text(STRANGER)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[automl_tl]\nstranger = stranger\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    cli = CommandLine(tmp_path, cache)
    quick = ("--backbone", "torch/tiny", "--set", "epochs=2", "--set", "depth=0")
    process = cli.start(
        *("search", str(photos), "--study", "s", "--trials", "2", "--log", "stranger", *quick)
    )
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0
    message = "Plugin stranger: automl_tl_trial_finished failed: OSError: disk full"
    assert said.count(message) == 1
    cli.run("resume", "s", "--trials", "3")

    lines = (tmp_path / "studies" / "s" / "seen.jsonl").read_text().splitlines()
    seen = [json.loads(line) for line in lines]
    trials = [one for one in seen if "state" in one]
    assert [(one["number"], one["state"]) for one in trials] == [(n, "complete") for n in range(3)]
    for trial, shown in zip(trials, cli.show("s")["trials"], strict=True):
        assert trial["value"] == shown["value"]
        epochs = [one for one in seen if one["number"] == trial["number"] and "epoch" in one]
        assert [one["epoch"] for one in epochs] == list(range(shown["epochs"]))
        assert {one["epochs"] for one in epochs} == {shown["planned_epochs"]}
        assert epochs[-1]["value"] == trial["value"]
        assert all(one["loss"] > 0 and one["rate"] >= 0 for one in epochs)
        assert {one["metric"] for one in epochs} == {"accuracy"}
