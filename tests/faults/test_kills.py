"""``kill -9`` in the middle of a write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

from automl_tl.cache.store import Store
from automl_tl.files import left_aside
from automl_tl.predict import open_model
from tests.commandline import tree
from tests.faults.conftest import SEARCH, facts, kill, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine
    from tests.faults.conftest import Faults

TUNED = (*SEARCH, "--set", "depth=1", "--set", "epochs=3", "--set", "head_layers=0")
DIE = """
import os, pathlib, signal

module, _, at = os.environ.get("DIE", "").partition(":")
command = pathlib.Path("/proc/self/cmdline").read_text().replace(chr(0), " ")
if module and module in command:
    sync, seen = os.fsync, 0

    def fsync(file):
        global seen
        seen += 1
        died = pathlib.Path(os.environ["FAULTS"], "died")
        if seen == int(at) and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    os.fsync = fsync
"""


def test_a_kill_during_a_cache_fill(cli: CommandLine, photos: Path, faults: Faults) -> None:
    faults.cause("half a fill")
    process = cli.start("search", str(photos), *SEARCH, "--set", "depth=0", "--trials", "1")
    faults.wait("half a fill", process)
    kill(process)
    assert list((cli.folder / "cache" / "partial").iterdir())
    cli.run("resume", "s", "--trials", "1")
    assert not list((cli.folder / "cache" / "partial").iterdir())
    store = Store(cli.folder / "cache", 10**9)
    arrays = [e.array() for e in store.entries() if e.meta["kind"] == "activations"]
    assert arrays and not any((array == 7).all(axis=1).any() for array in arrays)
    assert facts(cli)["trials"][0]["reason"] == "its process died"


def test_a_kill_during_a_checkpoint(cli: CommandLine, photos: Path, faults: Faults) -> None:
    faults.cause("half a model")
    process = cli.start("search", str(photos), *TUNED, "--trials", "1")
    model = cli.folder / "studies" / "s" / "trials" / "00000" / "model.safetensors"
    wait_until(process, lambda: any(left_aside(model)), "no half of a model")
    kill(process)
    cli.run("resume", "s", "--trials", "1")
    assert not list(left_aside(model))
    lost, again = facts(cli)["trials"]
    assert (lost["state"], again["state"], again["retry_of"]) == ("failed", "complete", 0)


@pytest.mark.slow
def test_a_kill_during_an_export(cli: CommandLine, photos: Path, faults: Faults) -> None:
    cli.run("search", str(photos), *TUNED, "--trials", "1")
    faults.cause("half an export")
    process = cli.start("export", "s", "-o", "m.onnx")
    faults.wait("half an export", process)
    kill(process)
    assert not (cli.folder / "m.onnx").exists()
    cli.run("export", "s", "-o", "m.onnx")
    open_model(cli.folder / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 9))
def test_a_kill_at_any_write_of_a_new_study(
    cli: CommandLine, photos: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the next is durable of the journal, ``split.csv``, ``data.json``, ``study.toml``."""
    process = _die(cli, monkeypatch, f"automl_tl search:{at}", photos)
    assert process == -9
    if (cli.folder / "studies" / "s" / "study.toml").exists():
        cli.run("resume", "s", "--trials", "1")
    else:
        cli.run("search", str(photos), *TUNED, "--trials", "1")
    assert facts(cli)["state"]["complete"] == 1
    assert facts(cli)["best"]["test"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 16))
def test_a_kill_at_any_write_of_a_worker(
    cli: CommandLine, photos: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The journal, the trial's files, ``result.json``: the search goes on by itself."""
    assert _die(cli, monkeypatch, f"automl_tl.worker:{at}", photos) == 0
    found = facts(cli)
    assert found["state"]["complete"] == 1
    assert [trial["number"] for trial in found["trials"]] == list(range(len(found["trials"])))
    if found["best"]["test"] is None:
        cli.run("resume", "s", "--trials", "1")
        assert facts(cli)["best"]["test"] is not None


@pytest.mark.slow
def test_nothing_outlives_a_killed_supervisor(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("hang")
    process = cli.start("search", str(photos), *TUNED, "--trials", "1")
    faults.wait("hang", process)
    below = tree(process)
    below[0].kill()
    process.communicate()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
    cli.run("resume", "s", "--trials", "1")
    assert facts(cli)["state"]["complete"] == 1


def _die(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, how: str, photos: Path) -> int:
    """Search where a process is killed once, when it makes something durable for the n-th time.

    Returns:
        The exit code of the command.
    """
    (cli.folder / "patched").mkdir()
    (cli.folder / "patched" / "sitecustomize.py").write_text(DIE)
    with monkeypatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", f"{cli.folder / 'patched'}{os.pathsep}{os.environ['PYTHONPATH']}"
        )
        patch.setenv("DIE", how)
        process = type(cli)(cli.folder, cli.folder / "cache").start(
            "search", str(photos), *TUNED, "--trials", "1"
        )
    process.communicate(timeout=120)
    return int(process.returncode)
