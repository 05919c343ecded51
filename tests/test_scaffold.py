"""``plugin new``: what it writes is whole, clean and found; what it refuses leaves no trace."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_tl import plugin_files, plugins
from automl_tl.errors import UsageError
from automl_tl.scaffold import KINDS, new_plugin
from tests.commandline import CommandLine
from tests.installing import install

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
EVERY = [("backbone", "torch"), ("backbone", "keras"), *((kind, None) for kind in KINDS[1:])]
QUICK = ("--set", "flip=false", "--set", "epochs=1", "--set", "warmup_epochs=1", "--trials", "2")


@pytest.mark.parametrize(("kind", "framework"), EVERY)
def test_a_new_plugin_is_found_and_adds_what_it_says(
    kind: str, framework: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_plugin(f"found-{framework or kind}", kind, framework, tmp_path)
    assert made.path == tmp_path / f"found-{framework or kind}"
    found = {str(path.relative_to(made.path)) for path in made.path.rglob("*") if path.is_file()}
    assert found == set(made.files)
    for file in made.files:
        assert "{" + "{" not in (made.path / file).read_text(encoding="utf-8")
    install(made, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (own,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: list(own.entry_points))
    known = plugins.discover()
    assert known.problems == []
    provided = {one.name: one.provides for one in known.listing}[made.plugin]
    assert made.key in provided[f"{kind}s"]
    assert {one.name: one.distribution for one in known.listing}[made.plugin] == (
        f"found-{framework or kind} 0.1.0"
    )


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_weights_beside_the_module_are_the_published_ones(framework: str, tmp_path: Path) -> None:
    made = new_plugin("fresh", framework=framework, folder=tmp_path)
    code = made.path / made.module
    (backbone,) = plugin_files.load(code).automl_tl_backbones()
    assert backbone.pretrained is None
    weights = code.with_suffix(".safetensors")
    weights.touch()
    (backbone,) = plugin_files.load(code).automl_tl_backbones()
    assert backbone.pretrained.path() == weights
    assert backbone.key == made.key


def test_the_prefix_of_distributions_is_not_typed(tmp_path: Path) -> None:
    made = new_plugin("automl-tl-fresh", framework="keras", folder=tmp_path)
    assert (made.plugin, made.key, made.module) == ("fresh", "keras/fresh", "automl_tl_fresh.py")
    project = tomllib.loads((made.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "automl-tl-fresh"
    assert project["entry-points"] == {"automl_tl": {"fresh": "automl_tl_fresh"}}
    assert project["dependencies"] == ["automl-tl", "automl-tl-keras"]


def test_what_is_written_passes_our_own_linter(tmp_path: Path) -> None:
    for kind, framework in EVERY:
        new_plugin(f"clean_{framework or kind}", kind, framework, tmp_path)
    ruff = (sys.executable, "-m", "ruff")
    for command in (("check",), ("format", "--check")):
        done = subprocess.run(
            [*ruff, *command, "--config", ROOT / "pyproject.toml", "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_written_is_typed(tmp_path: Path) -> None:
    for kind, framework in EVERY:
        new_plugin(f"typed_{framework or kind}", kind, framework, tmp_path)
    code = [path for path in tmp_path.glob("*/typed_*")]
    assert len(code) == len(EVERY)
    found = os.pathsep.join(str(path) for path in (*ROOT.glob("plugins/*"), *tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *code],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": found},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "small letters, digits"),
        ("My.Net", "try my_net"),
        ("../evil", "try evil"),
        ("/tmp/evil", "try tmp_evil"),
        ("a b", "try a_b"),
        ("9lives", "try lives"),
        ("net\n", "try net"),
        ("-o", "try o"),
        ("nët", "try n_t"),
        ("x" * 41, f"try {'x' * 40}"),
        ("a__b", "try a_b"),
        ("class", "that Python can import"),
        ("automl-tl", "that Python can import"),
        ("json", "there is the Python module json already"),
        ("torch", "already"),
        ("local", "there is the engine local already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    kind = "engine" if name == "local" else "backbone"
    with pytest.raises(UsageError, match=expected):
        new_plugin(name, kind, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        lambda path: path.write_text("mine"),
        lambda path: path.symlink_to("nowhere"),
    ],
)
def test_what_is_there_is_never_overwritten(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "fresh")
    before = os.lstat(tmp_path / "fresh")
    with pytest.raises(UsageError, match="is there already"):
        new_plugin("fresh", folder=tmp_path)
    assert os.lstat(tmp_path / "fresh").st_ino == before.st_ino
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_when_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UsageError, match="No space left on device"):
        new_plugin("fresh", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--kind backbone, backend, dataset, observer or engine"):
        new_plugin("fresh", "optimizer", folder=tmp_path)
    with pytest.raises(UsageError, match="--framework torch or keras, got 'jax'"):
        new_plugin("fresh", framework="jax", folder=tmp_path)
    with pytest.raises(UsageError, match="--framework with --kind backbone, got --kind engine"):
        new_plugin("fresh", "engine", "torch", tmp_path)
    with pytest.raises(UsageError, match="expected an existing folder"):
        new_plugin("fresh", folder=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_new_backend_data_set_observer_and_engine_search_together(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search with all four, whose framework is NumPy, so that it takes seconds."""
    for kind in ("backend", "dataset", "observer", "engine"):
        install(new_plugin(f"fresh-{kind}", kind, folder=tmp_path), tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    cli = CommandLine(tmp_path, cache)
    network = "fresh-backend/perceptron"
    options = ("--study", "s", "--log", "fresh-observer", "--engine", "fresh-engine")
    cli.run("search", "fresh-dataset", "--backbone", network, *options, *QUICK)
    shown = cli.show("s")
    assert [trial["state"] for trial in shown["trials"]] == ["complete", "complete"]
    assert shown["classes"] == ["circle", "cross", "square"]
    lines = (tmp_path / "studies" / "s" / "fresh-observer.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        ["number", "state"],
        ["0", "complete"],
        ["1", "complete"],
    ]
    said = cli.run("export", "s", "-o", "model.onnx")
    count = sum(row["validation"] for row in shown["data"]["counts"].values())
    assert f"agrees with the trained model on {count} of {count}" in said


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_new_backbone_is_built_installed_and_searched(
    framework: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built by its own build system, as ``pip install`` does."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    made = new_plugin("fresh_net", "backbone", framework, tmp_path)
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation")
    target = tmp_path / "site"
    done = subprocess.run(
        [*pip, "--no-index", "--target", target, made.path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PYTHONPATH", str(target), prepend=os.pathsep)
    cli = CommandLine(tmp_path, cache)
    assert f"backbones {made.key}" in cli.run("plugins")
    tuned = ("--set", "depth=0.5")
    cli.run("search", "digits", "--backbone", made.key, "--study", "s", *tuned, *QUICK)
    assert [trial["state"] for trial in cli.show("s")["trials"]] == ["complete", "complete"]
    cli.run("export", "s", "-o", "model.onnx")
