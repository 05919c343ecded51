"""The real command line over a framework that goes wrong when a test says so."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl import Study
from automl_tl.scaffold import new_plugin
from tests.commandline import CommandLine, tree
from tests.installing import install

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen

SEARCH = ("--backbone", "faulty/perceptron", "--study", "s", "--set", "image_size=32")


@dataclass(frozen=True)
class Faults:
    """What is to go wrong."""

    folder: Path

    def cause(self, name: str, times: int = 1) -> None:
        (self.folder / name).write_text(str(times))

    def wait(self, name: str, process: Popen[str]) -> None:
        """Wait until a fault has happened."""
        wait_until(process, (self.folder / f"{name}.now").exists, f"no {name}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Python's path, with the backend of ``plugin new`` and the plugin ``faulty``."""
    made = new_plugin("fresh-numbers", "backend", folder=tmp_path_factory.mktemp("made"))
    site = tmp_path_factory.mktemp("site")
    install(made, site)
    shutil.copy(Path(__file__).with_name("faulty.py"), site)
    meta = site / "faulty-0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 0\n")
    (meta / "entry_points.txt").write_text("[automl_tl]\nfaulty = faulty\n")
    return site


@pytest.fixture
def faults(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv("FAULTS", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))))
    return Faults(folder)


@pytest.fixture
def cli(tmp_path: Path, faults: Faults) -> CommandLine:
    """The command line with a cache of its own, so that every test fills it."""
    return CommandLine(tmp_path, tmp_path / "cache")


def facts(cli: CommandLine, study: str = "s") -> dict[str, Any]:
    """Return what ``show --json`` prints, without starting a process."""
    return Study.open(cli.folder / "studies" / study).summary()


def wait_until(process: Popen[str], happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"not in a minute: {what}"
        time.sleep(0.05)


def kill(process: Popen[str], module: str = "") -> None:
    """Kill what runs a module, or a process with all that it started."""
    victims = [one for one in tree(process) if module in " ".join(one.cmdline())]
    assert victims, f"no {module} runs"
    for one in victims:
        one.kill()
    if not module:
        process.communicate()
