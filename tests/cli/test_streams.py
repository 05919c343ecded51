"""Where the output goes: nowhere, to a full disk, to a narrow terminal."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from automl_tl.cli import console

COMMAND = f"{shlex.quote(sys.executable)} -m automl_tl backbones torch/tiny"


def end(redirected: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(f"{COMMAND} {redirected}", shell=True, capture_output=True, text=True)


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-", "> /dev/null 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    ended = end(closed)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_full_disk_behind_a_redirect_is_one_sentence(option: str) -> None:
    ended = end(f"{option} >/dev/full")
    assert ended.returncode == 2
    assert ended.stderr == "Error: the output cannot be written (No space left on device).\n"


def test_a_narrow_terminal_keeps_the_names_of_rows(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    board = console.table([("class", False), *((name, True) for name in ("precision", "recall"))])
    board.add_row("tulips", "0.333", "0.667")
    console.stdout().print(board)
    assert "tulips" in capsys.readouterr().out
