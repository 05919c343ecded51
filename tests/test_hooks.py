"""The hooks: documented as they are, tested, and called in an order that stays."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy
import pytest

from automl_tl import hookspecs
from automl_tl.scaffold import new_plugin
from tests.commandline import CommandLine
from tests.installing import install

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("automl_tl_")}

# Writes a line for each call of a hook, into a file for each kind of process.
RECORDER = """
import sys
from pathlib import Path
from automl_tl.hookspecs import hookimpl

module = sys.orig_argv[sys.orig_argv.index("-m") + 1].rpartition(".")[2]

def note(*facts):
    with (Path(__file__).parent / f"{module}.calls").open("a") as file:
        print(*facts, file=file)

@hookimpl
def automl_tl_engines():
    note("engines")

@hookimpl
def automl_tl_datasets():
    note("datasets")

@hookimpl
def automl_tl_backbones():
    note("backbones")

@hookimpl
def automl_tl_backends():
    note("backends")

@hookimpl
def automl_tl_search_space(backbone):
    note("search_space", backbone.key)

@hookimpl
def automl_tl_epoch_finished(epoch):
    note("epoch_finished", epoch.number, epoch.epoch, epoch.phase)

@hookimpl
def automl_tl_trial_finished(trial):
    note("trial_finished", trial.number, trial.state)
"""


def _example(hook: Callable[..., Any]) -> str:
    """Return the code of a hook's example."""
    text = inspect.getdoc(hook) or ""
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("Example:\n")[2], re.DOTALL)
    return textwrap.dedent(code)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_all_that_its_signature_says(name: str) -> None:
    text = inspect.getdoc(HOOKS[name]) or ""
    assert "\n\nCalled " in text, "when it is called"
    signature = inspect.signature(HOOKS[name])
    arguments = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+): ", arguments, re.MULTILINE) == list(signature.parameters)
    assert ("\nReturns:\n" in text) == (signature.return_annotation != "None")


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_of_a_hook_is_a_plugin(name: str) -> None:
    module = ModuleType(f"example_of_{name}")
    exec(_example(HOOKS[name]), vars(module))
    example = getattr(module, name)
    assert inspect.signature(example).parameters.keys() == (
        inspect.signature(HOOKS[name]).parameters.keys()
    )
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    (implemented,) = getattr(manager.hook, name).get_hookimpls()
    assert implemented.function is example
    if not implemented.argnames:
        assert len(list(getattr(manager.hook, name)()[0])) == 1


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_used_by_a_test(name: str) -> None:
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/**/test_*.py")]
    others = [path.read_text(encoding="utf-8") for path in files if "hook" not in path.name]
    assert any(f"def {name}(" in text for text in others)


def test_the_hooks_of_a_search_are_called_in_this_order(
    tmp_path: Path, cache: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(new_plugin("ordered-backend", "backend", folder=tmp_path), tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    (tmp_path / "recorder.py").write_text(RECORDER)
    network = "ordered-backend/perceptron"
    cli = CommandLine(tmp_path, cache)
    cli.run(
        *("search", str(photos), "--study", "s", "--trials", "1", "--backbone", network),
        *("--plugin", "recorder.py", "--log", "recorder", "--set", "depth=1"),
        *("--set", "flip=false", "--set", "warmup_epochs=2", "--set", "epochs=1"),
    )
    discovery = ["backends", "backbones", "datasets", "engines"]
    space = f"search_space {network}"
    assert _calls(tmp_path, "automl_tl") == [*discovery, space, space]
    assert _calls(tmp_path, "worker_process") == [
        *discovery,
        space,
        "epoch_finished 0 0 warm-up",
        "epoch_finished 0 1 warm-up",
        "epoch_finished 0 2 fine-tuning",
        "trial_finished 0 complete",
    ]
    assert _calls(tmp_path, "hosted") == discovery


def _calls(folder: Path, process: str) -> list[str]:
    return (folder / f"{process}.calls").read_text().splitlines()
