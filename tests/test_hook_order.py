"""The order in which hooks are called, as the page of the hooks tells it."""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import observe, plugins, prepare
from automl_tl.study import StudyData, StudyDirectory
from automl_tl.study_config import Config
from automl_tl.types import EpochReport
from tests.pages import page

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SOURCE = """
from pathlib import Path
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone

def note(hook, *facts):
    with Path({log!r}).open("a") as file:
        print({name!r}, hook, *facts, file=file)

@hookimpl
def automl_tl_trial_finished(trial):
    note("automl_tl_trial_finished", trial.number)

@hookimpl
def automl_tl_epoch_finished(epoch):
    note("automl_tl_epoch_finished", epoch.number, epoch.epoch)

@hookimpl
def automl_tl_search_space(backbone):
    note("automl_tl_search_space", backbone.name)

@hookimpl
def automl_tl_engines():
    note("automl_tl_engines")

@hookimpl
def automl_tl_datasets():
    note("automl_tl_datasets")

@hookimpl
def automl_tl_backbones():
    note("automl_tl_backbones")
    return [Backbone({name!r}, "torch", print, input_size=32, parameters=1)]

@hookimpl
def automl_tl_backends():
    note("automl_tl_backends")
"""


def _epoch(number: int) -> EpochReport:
    return EpochReport("warm-up", number, 2, 0.5, np.zeros((1, 2), np.float32), 0.01, 0.1)


def test_hooks_are_called_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "calls"
    entries = []
    for name in ("second", "first"):
        module = f"order_{tmp_path.name.replace('-', '_')}_{name}"
        (tmp_path / f"{module}.py").write_text(SOURCE.format(log=str(log), name=name))
        entries.append(importlib.metadata.EntryPoint(name, module, "automl_tl"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    found = plugins.discover()
    assert found.problems == []
    for module in (observe, prepare):
        monkeypatch.setattr(module, "get_plugins", lambda: found)
    config = Config("s", "digits", ("torch/first", "torch/second"), log=("second",))
    prepare.study_space(config)
    data = StudyData((), (), np.zeros(0, np.int64), (), (), "", {})
    observers = observe.Observers(StudyDirectory.create(tmp_path / "s", config, data), print)
    observers.epoch(0, _epoch(0), 0.5)
    observers.epoch(0, _epoch(1), 0.5)
    observers.trial(0, "complete", 0.5, {}, {})
    observers.wait(float("inf"))

    announcing = re.findall(r"^\d\. `(automl_tl_\w+)`$", page("hooks.md"), re.MULTILINE)
    assert log.read_text().splitlines() == [
        *(f"{name} {hook}" for hook in announcing for name in ("first", "second")),
        *(
            f"{name} automl_tl_search_space {backbone}"
            for backbone in ("first", "second")
            for name in ("first", "second")
        ),
        "second automl_tl_epoch_finished 0 0",
        "second automl_tl_epoch_finished 0 1",
        "second automl_tl_trial_finished 0",
    ]
