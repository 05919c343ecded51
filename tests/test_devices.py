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
    assert devices.gpus_for(None, ["torch"], tmp_path / "log", said.append) == ("0", "1")
    assert devices.gpus_for(3, ["torch"], tmp_path / "log", said.append) == ("0", "1", "0")
    assert said == []


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
