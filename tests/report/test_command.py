"""The command, over a study that was really searched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine

QUICK = ("--backbone", "torch/tiny", "--set", "depth=0", "--set", "warmup_epochs=2")


def test_a_searched_study_is_reported(cli: CommandLine, photos: Path) -> None:
    cli.run("search", str(photos), "--study", "one", "--trials", "3", *QUICK)
    out = cli.run("report", "one")
    path = cli.folder / "studies" / "one" / "report.html"
    assert str(path) in out
    html = path.read_text(encoding="utf-8")
    assert re.search(r"[\d.]+ ms an image on this machine.s CPU", html)
    assert html.count("data:image/jpeg;base64,") >= 5
    assert "automl-tl search" in html


def test_what_cannot_be_reported_is_said_in_a_sentence(cli: CommandLine) -> None:
    assert "There is no study 'none'" in cli.run("report", "none", code=2)
