"""Plugins that are one Python file: how people load them, and that nobody else can."""

from __future__ import annotations

import json
import os
import shlex
import time
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from automl_tl import plugin_files, plugins, storage
from automl_tl.api import Study
from automl_tl.cli.config import from_file
from automl_tl.cli.errors import run
from automl_tl.errors import DataError, UsageError
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commandline import CommandLine

NET = """
from pathlib import Path
from dataclasses import dataclass
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone

Path(__file__).with_suffix(".ran").touch()

@dataclass
class Loader:
    "A class whose annotations are looked up in its module."
    width: int = 3

    def __call__(self, weights):
        from automl_tl_torch.tiny_network import Tiny

        return Tiny()

@hookimpl
def automl_tl_backbones():
    return [Backbone("mine", "torch", Loader(), input_size=32, parameters=463_716)]
"""


SLOW = """
import time
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import DatasetSpec

@hookimpl
def automl_tl_datasets():
    return [DatasetSpec("far", lambda cache: time.sleep(20), download_bytes=1000)]
"""


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end with what is installed; put the environment back."""
    monkeypatch.setenv(plugin_files.VARIABLE, "")
    plugins.get_plugins.cache_clear()
    yield
    plugins.get_plugins.cache_clear()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "my net.py"
    path.write_text(NET)
    return path


def test_a_file_is_a_plugin_with_its_own_name(net: Path) -> None:
    plugins.use_files([net])
    found = plugins.get_plugins()
    assert found.problems == []
    assert "torch/mine" in found.backbones
    listed = {one.name: one for one in found.listing}["my net"]
    assert listed.distribution == str(net)
    assert listed.provides == {"backbones": ["torch/mine"]}
    assert os.environ[plugin_files.VARIABLE] == str(net)
    plugins.use_files([net])
    assert plugins.get_plugins() is found, "the same file again changes nothing"


def test_what_an_edited_plugin_computed_before_is_another_plugins(net: Path) -> None:
    plugins.use_files([net])
    before = plugins.discover().provider("torch/mine")
    assert plugins.discover().provider("torch/mine") == before
    net.write_text(NET.replace("width: int = 3", "width: int = 64"))
    assert plugins.discover().provider("torch/mine") != before
    assert plugins.discover().provider("torch/tiny").startswith("automl-tl-torch ")


def test_a_missing_file_is_refused_and_nothing_is_loaded(tmp_path: Path, net: Path) -> None:
    for wrong in ("gone.py", "folder.py", "notes.txt"):
        (tmp_path / "folder.py").mkdir(exist_ok=True)
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UsageError, match=f"--plugin .*{wrong}: expected a Python file"):
            plugins.use_files([net, tmp_path / wrong])
    assert plugin_files.listed() == ()
    odd = tmp_path / f"a{os.pathsep}b.py"
    odd.touch()
    with pytest.raises(UsageError, match="expected a path without"):
        plugins.use_files([odd])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def (", "not loaded: SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import nothing_like_this", "not loaded: ModuleNotFoundError: No module named"),
        ("raise SystemExit(0)", "not loaded: SystemExit: 0"),
        ("def automl_tl_backbone(): pass", "not loaded: PluginError: Unknown hook"),
        (None, "not loaded: FileNotFoundError"),
    ],
)
def test_a_broken_file_is_named_once_and_the_rest_works(
    tmp_path: Path, net: Path, source: str | None, message: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(source or "")
    plugins.use_files([broken, net])
    if source is None:
        broken.unlink()
    found = plugins.get_plugins()
    (problem,) = found.problems
    assert problem.plugin == "broken"
    assert problem.message.startswith(message)
    assert "torch/mine" in found.backbones
    with pytest.raises(UsageError, match=r"Unknown backbone 'torch/x' \(plugin broken: not loa"):
        found.backbone("torch/x")


def test_a_name_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    plugins.use_files([tmp_path / "torch.py"])
    (problem,) = plugins.get_plugins().problems
    assert "its name is taken by automl-tl-torch" in problem.message
    assert "torch/tiny" in plugins.get_plugins().backbones


def test_a_config_names_files_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "study.toml"
    path.write_text('[plugins]\nfiles = ["net.py", "/elsewhere/net.py"]\n')
    assert from_file(path).plugins == (str(tmp_path / "sub" / "net.py"), "/elsewhere/net.py")
    for wrong in ('plugins = ["net.py"]', "[plugins]\nfile = 'a.py'", "[plugins]\nfiles = 3"):
        path.write_text(wrong)
        with pytest.raises(UsageError, match="expected plugins to be"):
            from_file(path)


@pytest.fixture
def stranger(tmp_path: Path, net: Path) -> StudyDirectory:
    """A study that names a file of code, as a stranger might send it."""
    path = tmp_path / "studies" / "s"
    config = Config("s", "digits", ("torch/mine",), {"torch/mine": "none"}, plugins=(str(net),))
    labels = np.zeros(2, np.int64)
    facts = {"images": 2, "broken": []}
    data = StudyData(
        ("a",), ("a/0", "a/1"), labels, ("train", "validation"), ("0", "1"), "0", facts
    )
    path.mkdir(parents=True)
    storage.create_optuna(path, None, "s", "maximize")
    return StudyDirectory.create(path, config, data)


def test_no_command_runs_what_a_study_names(
    stranger: StudyDirectory,
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))
    sentence = (
        "The study was searched with torch/mine, which is not installed here: it came from a "
        f"plugin file, so add --plugin {shlex.quote(str(net))} if you trust that code."
    )
    for command in ("resume s --trials 1", "export s -o m.onnx", "export s --ensemble -o m.onnx"):
        assert run(command.split()) == 2
        assert capsys.readouterr().err == f"Error: {sentence}\n"
    assert run(["show", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [sentence]
    storage.open_optuna(stranger.path, None, "s", 0).ask()  # a search that was interrupted
    assert run(["show", "s"]) == 0
    assert "`automl-tl resume s` goes on" in capsys.readouterr().out
    assert run(["report", "s"]) == 0
    assert run(["search", "--config", str(stranger.path / "study.toml")]) == 2
    assert "unknown key 'format'" in capsys.readouterr().err
    assert not net.with_suffix(".ran").exists()


def test_the_python_interface_loads_only_what_it_is_given(
    stranger: StudyDirectory, net: Path
) -> None:
    study = Study.open(stranger.path)
    with pytest.raises(UsageError, match="if you trust that code"):
        study.search(trials=1)
    assert not net.with_suffix(".ran").exists()
    assert Study.open(stranger.path, plugins=[net]).summary()["warnings"] == []
    assert net.with_suffix(".ran").exists()


def test_the_download_of_a_data_set_gets_half_of_the_time(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    started = time.monotonic()
    with pytest.raises(DataError, match="far cannot be downloaded and unpacked in half of the"):
        Study.create(tmp_path / "study", "far", plugins=[slow], deadline=started + 1)
    assert time.monotonic() - started < 10
    assert not (tmp_path / "study").exists()


def test_a_moved_file_replaces_itself_in_the_study(stranger: StudyDirectory, net: Path) -> None:
    moved = net.parent / "elsewhere" / net.name
    other = net.parent / "other.py"
    stranger.add_plugins([moved, other])
    recorded = tomllib.loads((stranger.path / "study.toml").read_text())["plugins"]
    assert recorded == {"files": [str(moved), str(other)]}
    assert StudyDirectory.open(stranger.path).config == stranger.config


@pytest.mark.slow
def test_a_file_takes_part_from_search_to_prediction(
    net: Path, photos: Path, cli: CommandLine
) -> None:
    """Workers and frameworks' processes load it too."""
    quick = ("--set", "epochs=1", "--set", "warmup_epochs=1", "--set", "depth=0")
    own = ("--plugin", str(net))
    options = ("--backbone", "mine", "--study", "s", "--trials", "1", *quick)
    config = net.with_name("mine.toml")
    config.write_text(f'[plugins]\nfiles = ["{net.name}"]\n')
    out = cli.run("search", str(photos), "--config", str(config), *options)
    again = f"automl-tl export s --plugin {shlex.quote(str(net))} -o model.onnx"
    assert again in out
    shown: Any = cli.show("s")
    assert shown["plugins"] == [str(net)]
    assert [trial["backbone"] for trial in shown["trials"]] == ["torch/mine"]
    cli.run(*shlex.split(again)[1:-1], "model.safetensors")
    image = str(next(photos.glob("circle/*.png")))
    assert "Unknown backbone 'torch/mine'" in cli.run("predict", "model.safetensors", image, code=2)
    assert image in cli.run("predict", "model.safetensors", image, *own)
