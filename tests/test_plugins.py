from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy
import pytest

from automl_tl import plugins, prepare
from automl_tl.builtin import automl_tl_engines
from automl_tl.errors import UsageError
from automl_tl.parameters import PARAMETERS
from automl_tl.specs import EngineSpec, FinishedTrial
from automl_tl.study_config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

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


(LOCAL,) = automl_tl_engines()


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
        (
            "from automl_tl.hookspecs import hookimpl\n"
            "@hookimpl\ndef automl_tl_datasets():\n    raise SystemExit(3)",
            "automl_tl_datasets failed: SystemExit: 3",
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


ANNOUNCING = """
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import BackendSpec, DatasetSpec, EngineSpec

@hookimpl
def automl_tl_backends():
    return [BackendSpec("mine", load=print, formats={})]

@hookimpl
def automl_tl_datasets():
    return (DatasetSpec(name, load=print) for name in ("mine", "digits"))

@hookimpl
def automl_tl_engines():
    return [EngineSpec("mine", create=print), EngineSpec("local", create=print)]
"""


def test_what_is_announced_is_found_unless_its_name_is_taken(install: Install) -> None:
    found = install(mine=ANNOUNCING)
    assert list(found.backends) == ["mine"]
    assert {"digits", "mine"} <= set(found.datasets)
    assert list(found.engines) == ["local", "mine"]
    provided = {one.name: one.provides for one in found.listing}
    assert provided["mine"] == {kind: ["mine"] for kind in ("backends", "datasets", "engines")}
    assert [(one.plugin, one.message) for one in found.problems] == [
        ("mine", "digits is already provided by automl-tl; left out."),
        ("mine", "local is already provided by automl-tl; left out."),
    ]


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
    assert found.search_space(found.backbones["torch/net"]) == ({"epochs": 3}, [])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("5", "returned 5, expected a mapping of parameters or None."),
        ("[]", "returned [], expected a mapping of parameters or None."),
        ("{'dropout': 'high'}", "cannot be searched: dropout: expected a number, got 'high'."),
        ("{'dropuot': 1}", "Unknown parameter 'dropuot': did you mean dropout?"),
        ("{5: 1}", "cannot be searched: Unknown parameter 5: there are depth, "),
        ("{'epochs': 3, 'image_size': {'low': 32, 'high': 64}}", "image_size: expected a value"),
        ("1 / 0", "automl_tl_search_space failed: ZeroDivisionError"),
    ],
)
def test_a_space_that_cannot_be_searched_is_left_out_by_name(
    install: Install, answer: str, message: str
) -> None:
    hook = "@hookimpl\ndef automl_tl_search_space(backbone):\n    return {}\n"
    found = install(
        bad="from automl_tl.hookspecs import hookimpl\n" + hook.format(answer),
        good=NET.format(name="net") + hook.format("{'epochs': 4}"),
    )
    space, (problem,) = found.search_space(found.backbones["torch/net"])
    assert space == {"epochs": 4}
    assert problem.plugin == "bad"
    assert message in problem.message
    assert found.problems == []


def test_a_space_that_cannot_be_searched_is_told_once(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = "@hookimpl\ndef automl_tl_search_space(backbone):\n    return {'dropout': 'high'}\n"
    found = install(mine=NET.format(name="one") + hook, other=NET.format(name="two"))
    monkeypatch.setattr(prepare, "get_plugins", lambda: found)
    told: list[str] = []
    space = prepare.study_space(Config("s", "x", ("torch/one", "torch/two")), told.append)
    assert [one.partition(":")[0] for one in told] == ["Plugin mine"]
    assert space.domain("dropout", "torch/two") == PARAMETERS["dropout"].default


def test_discovery_imports_no_framework() -> None:
    script = (
        "import sys; from automl_tl.plugins import get_plugins; p = get_plugins(); "
        "assert not p.problems, p.problems; assert len(p.backbones) > 50; "
        "print(sorted({'torch', 'torchvision', 'optuna', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


PUBLIC = ("errors", "hookspecs", "protocols", "specs", "testing", "types")
"""The boundary: what plugins may import from, beside what ``automl_tl`` itself hands out."""


@pytest.mark.parametrize("module", ["", *PUBLIC])
def test_public_names_are_listed_sorted_and_completely(module: str) -> None:
    name = f"automl_tl.{module}".rstrip(".")
    source = importlib.util.find_spec(name)
    assert source is not None
    assert source.origin is not None
    listed = importlib.import_module(name).__all__
    assert listed == sorted(_public(ast.parse(Path(source.origin).read_text(encoding="utf-8"))))


def _public(tree: ast.Module) -> set[str]:
    """Return the names that a module defines, or that a package hands on from its modules."""
    found = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if "__getattr__" in ast.dump(tree):
                imports = [one for one in node.body if isinstance(one, ast.ImportFrom)]
                found |= {alias.name for one in imports for alias in one.names}
    return {name for name in found if not name.startswith("_")}


def test_an_engine_is_told_the_options_that_it_takes_and_no_others() -> None:
    told = []
    mine = EngineSpec("mine", lambda _: None, ("address",), told.append)  # type: ignore[arg-type, return-value]
    found = plugins.Plugins(pluggy.PluginManager("x"), engines={"mine": mine, "local": LOCAL})
    assert found.engine("mine", {"address": "x"}) is mine
    assert told == [{"address": "x"}]
    with pytest.raises(UsageError, match=r"^The engine local takes no --address: --engine mine do"):
        found.engine("local", {"address": "x"})
    with pytest.raises(UsageError, match=r"engine mine takes no --gpus-per-trial: leave it out\.$"):
        found.engine("mine", {"gpus_per_trial": 1})


def test_an_engine_of_ours_that_is_not_installed_says_how() -> None:
    with pytest.raises(UsageError, match=r"`pip install 'automl-tl\[ray\]'` installs it\."):
        plugins.Plugins(pluggy.PluginManager("x"), engines={"local": LOCAL}).engine("ray")
