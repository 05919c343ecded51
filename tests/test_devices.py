"""Sharing GPUs among workers, on a machine that only pretends to have some."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from automl_tl import devices
from automl_tl.host import BackendHost

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine

NARROW = """
from automl_tl_torch import device

device.memory_taken = lambda device: (3 * 2**30, 4 * 2**30)
"""
"""A device of four gibibytes of which every trial takes three."""

pytest.importorskip("automl_tl_torch", reason="the PyTorch plugin is not installed")


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: B (UUID: y)'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(scope="module")
def no_cuda() -> None:
    with BackendHost("torch") as host:
        if host.devices()[0].startswith("cuda"):
            pytest.skip("this machine has a CUDA device")


def test_the_environment_names_the_gpus(two_gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert devices.visible_gpus() == ("3", "GPU-abc")
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert devices.visible_gpus() == ()


def test_every_worker_sees_one_gpu(
    two_gpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_has_cuda", lambda *_: True)
    said: list[str] = []
    assert devices.gpus_for(None, 1, ["torch"], tmp_path / "log", said.append) == ("0", "1")
    assert devices.gpus_for(3, 1, ["torch"], tmp_path / "log", said.append) == ("0", "1", "0")
    shared = devices.gpus_for(None, 2, ["torch"], tmp_path / "log", said.append)
    assert shared == ("0", "1", "0", "1")
    assert said == []


def took(gib: float) -> dict[str, int]:
    return {"device_memory": round(gib * 2**30), "device_total": 80 * 2**30}


def test_as_many_workers_train_as_fit_on_their_device() -> None:
    room = devices.Room(("0", "1") * 4)
    assert room.left(0, range(1, 8))  # nothing is known yet
    assert room.learn(took(15)) is None  # five of them fit, and four are there
    assert room.learn({"device_memory": 0, "device_total": 0}) is None
    assert room.learn({}) is None
    assert room.learn(took(30)) == (
        "A trial took 30.0 of the device's 80.0 GiB: 2 of its 4 workers train at a time from now "
        "on."
    )
    assert room.left(0, [2, 3, 5, 7])  # one other on GPU 0
    assert not room.left(0, [2, 4])
    assert room.left(2, [2, 4])  # it is one of the two
    assert room.left(1, [0, 2, 4, 6])
    assert room.learn(took(28)) is None
    assert room.learn(took(79))
    assert room.left(0, [])
    assert not room.left(0, [2])


def test_a_worker_alone_on_its_device_always_trains() -> None:
    room = devices.Room((None,))
    assert room.learn(took(79)) is None
    assert room.left(0, [])


def test_one_worker_stores_what_all_others_read() -> None:
    room = devices.Room((None, None), one_first=True)
    assert room.left(1, [])
    assert room.left(1, [1])
    assert not room.left(0, [1])
    assert room.learn({}) is None
    assert room.left(0, [1])


def test_workers_that_do_not_fit_wait(cli: CommandLine, photos: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "narrow.py"
    plugin.write_text(NARROW)
    quick = ("--set", "epochs=1", "--set", "warmup_epochs=1", "--set", "depth=1")
    share = ("--workers-per-device", "2", "--plugin", str(plugin))
    process = cli.start(
        *("search", str(photos), "--backbone", "torch/tiny", "--trials", "4", *quick, *share)
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    said = "1 of its 2 workers train at a time from now on"
    assert (out + err).replace("\n", " ").count(said) == 1
    assert cli.show(photos.name)["state"]["complete"] == 4


def test_workers_are_counted_in_one_way(cli: CommandLine, photos: Path) -> None:
    both = ("--workers", "2", "--workers-per-device", "2")
    err = cli.run("search", str(photos), *both, code=2)
    assert "Expected --workers or --workers-per-device, got 2 in all and 2 a device" in err
    err = cli.run("search", str(photos), "--workers-per-device", "0", code=2)
    assert "Expected --workers-per-device to be at least 1, got 0." in err


def test_gpus_that_no_framework_can_use_are_left_alone(
    two_gpus, no_cuda, cli: CommandLine, photos: Path
) -> None:
    quick = ("--set", "epochs=1", "--set", "warmup_epochs=1", "--set", "depth=0")
    process = cli.start("search", str(photos), "--backbone", "torch/tiny", "--trials", "1", *quick)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("2 GPUs are there, but torch can use none of them") == 1
    assert cli.show(photos.name)["trials"][0]["device"] == "cpu"


def test_a_device_that_is_not_there_is_found_before_anything_is_made(
    no_cuda, cli: CommandLine, photos: Path
) -> None:
    command = ("--backbone", "torch/tiny", "--trials", "1", "--device", "cuda:9")
    err = cli.run("search", str(photos), *command, code=2)
    assert err.splitlines()[-1].startswith("Error: --device cuda:9: expected auto or one of")
    assert "died" not in err
    assert not (cli.folder / "studies").exists()
