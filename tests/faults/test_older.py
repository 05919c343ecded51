"""A study of an earlier version, as commit 30c54d5 wrote it, and one of a later version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_tl import tiny
from tests.faults.conftest import facts

if TYPE_CHECKING:
    from tests.commandline import CommandLine

OLD = Path(__file__).with_name("old")


@pytest.fixture
def study(cli: CommandLine) -> Path:
    """The old study, with its data where its data now are."""
    path = shutil.copytree(OLD, cli.folder / "studies" / "s")
    shutil.move(path / "photos", cli.folder)
    text = (path / "study.toml").read_text()
    text = text.replace("/tmp/oldrun/photos", str(cli.folder / "photos"))
    weights = Path(tiny.__file__).with_name("weights.safetensors")
    lines = [f'"torch/tiny" = "{weights}"' if "tiny.safe" in x else x for x in text.splitlines()]
    (path / "study.toml").write_text("\n".join(lines))
    return path


def test_a_study_of_an_earlier_version_is_read(cli: CommandLine, study: Path) -> None:
    found = facts(cli)
    assert found["state"] == {"complete": 4, "pruned": 0, "failed": 0, "running": 0}
    assert found["best"]["test"]["accuracy"] == 0.75
    assert "0.7500" in cli.run("show", "s")
    assert "not kept" in cli.run("export", "s", "-o", "m.onnx", code=2)


@pytest.mark.slow
def test_a_study_of_an_earlier_version_goes_on(cli: CommandLine, study: Path) -> None:
    before = facts(cli)["trials"]
    cli.run("report", "s")
    cli.run("resume", "s", "--trials", "6")
    after = facts(cli)
    assert after["state"]["complete"] + after["state"]["pruned"] == 6
    known = ("number", "value", "params", "state")
    for one, other in zip(before, after["trials"], strict=False):
        assert {name: one[name] for name in known} == {name: other[name] for name in known}


def test_a_study_of_a_later_version_is_refused(cli: CommandLine, study: Path) -> None:
    text = (study / "study.toml").read_text()
    (study / "study.toml").write_text(text.replace("format = 1", "format = 2"))
    sentence = cli.run("show", "s", code=2)
    assert "has format 2, expected 1: it was written by another version" in sentence
