from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from automl_tl import plugins
from automl_tl.errors import UsageError
from automl_tl.specs import FinishedTrial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., plugins.Plugins]

NET = """
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone, BackendSpec, DatasetSpec

def load(weights):
    raise NotImplementedError

@hookimpl
def automl_tl_backbones():
    return [Backbone({name!r}, "torch", load=load, input_size=32, parameters=1)]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install modules as plugins, by source, and discover them with nothing else around."""

    def discover(**sources: str) -> plugins.Plugins:
        entries = []
        for name, source in sources.items():
            module = f"plugin_{tmp_path.name.replace('-', '_')}_{name}"
            (tmp_path / f"{module}.py").write_text(source)
            entry = importlib.metadata.EntryPoint(name, module, "automl_tl")
            entries.append(entry)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
        return plugins.discover()

    return discover


def test_a_plugin_is_found_and_listed(install: Install) -> None:
    found = install(mine=NET.format(name="net"))
    assert list(found.backbones) == ["torch/net"]
    assert found.problems == []
    assert {one.name: one.provides for one in found.listing}["mine"] == {"backbones": ["torch/net"]}
    assert "digits" in found.datasets
    assert "local" in found.engines


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_like_this", "not loaded: ModuleNotFoundError: No module named"),
        ("1 / 0", "not loaded: ZeroDivisionError: division by zero"),
        (
            "def automl_tl_backbone(): return []",
            "not loaded: PluginError: Unknown hook 'automl_tl_backbone': "
            "did you mean automl_tl_backbones",
        ),
        (
            "from automl_tl.hookspecs import hookimpl\n"
            "@hookimpl\ndef automl_tl_backbones(wrong): return []",
            "not loaded: PluginValidationError",
        ),
        (
            "from automl_tl.hookspecs import hookimpl\n"
            "@hookimpl\ndef automl_tl_backbones(): raise RuntimeError('boom')",
            "automl_tl_backbones failed: RuntimeError: boom",
        ),
        (
            "from automl_tl.hookspecs import hookimpl\n"
            "@hookimpl\ndef automl_tl_backbones(): return ['resnet']",
            "automl_tl_backbones returned 'resnet', expected Backbone.",
        ),
        (
            "from automl_tl.hookspecs import hookimpl\n"
            "@hookimpl\ndef automl_tl_backbones():\n    yield 1 / 0",
            "automl_tl_backbones failed: ZeroDivisionError",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_works(
    install: Install, source: str, message: str
) -> None:
    found = install(broken=source, good=NET.format(name="net"))
    assert list(found.backbones) == ["torch/net"]
    (problem,) = found.problems
    assert problem.plugin == "broken"
    assert problem.message.startswith(message)


def test_a_repeated_name_names_both_providers(install: Install) -> None:
    found = install(one=NET.format(name="net"), two=NET.format(name="net"))
    (problem,) = found.problems
    named = {problem.plugin, *problem.message.split()}
    assert problem.message.startswith("torch/net is already provided by")
    assert named & {"one", "one;"}
    assert named & {"two", "two;"}


def test_backbones_are_matched_by_key_or_name(install: Install) -> None:
    found = install(mine=NET.format(name="resnet9"))
    assert [b.key for b in found.match("torch/res*")] == ["torch/resnet9"]
    assert [b.key for b in found.match("resnet9")] == ["torch/resnet9"]
    with pytest.raises(UsageError, match="did you mean torch/resnet9"):
        found.match("torch/resnet8")
    with pytest.raises(UsageError, match="did you mean torch/resnet9"):
        found.backbone("resnet99")
    with pytest.raises(UsageError, match="Unknown engine 'slurm': there are local"):
        found.engine("slurm")


def test_an_observers_failure_is_reported_and_ignored(install: Install, tmp_path: Path) -> None:
    observer = (
        "from automl_tl.hookspecs import hookimpl\n"
        "@hookimpl\ndef automl_tl_trial_finished(trial):\n    {body}"
    )
    found = install(
        bad=observer.format(body="raise OSError('disk')"),
        good=observer.format(body="(trial.directory / 'seen').write_text(str(trial.number))"),
    )
    trial = FinishedTrial("s", tmp_path, 7, "complete", "accuracy", 0.5, {}, {})
    assert found.observers == {"bad", "good"}
    assert found.tell("good", trial) is None
    problem = found.tell("bad", trial)
    assert problem == plugins.Problem("bad", "automl_tl_trial_finished failed: OSError: disk")
    assert (tmp_path / "seen").read_text() == "7"


def test_a_plugin_narrows_the_space_of_its_backbone(install: Install) -> None:
    found = install(
        mine=NET.format(name="net")
        + "\n@hookimpl\ndef automl_tl_search_space(backbone):\n"
        + "    return {'epochs': 3} if backbone.name == 'net' else None\n"
    )
    assert found.search_space(found.backbones["torch/net"]) == {"epochs": 3}


def test_discovery_imports_no_framework() -> None:
    script = (
        "import sys; from automl_tl.plugins import get_plugins; p = get_plugins(); "
        "assert not p.problems, p.problems; assert len(p.backbones) > 50; "
        "print(sorted({'torch', 'torchvision', 'optuna', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
