"""The coverage-guided fuzzer, a few seconds a reader, so that it does not rot."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import readers
from tests.fuzz.__main__ import READERS

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("atheris", reason="atheris has no wheel for this platform")


def test_all_readers_are_named() -> None:
    assert set(READERS) == set(readers.READERS)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_is_without_fault(tmp_path: Path, reader: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", reader, "--seconds", "5"]
    command += ["--seed", "1", "--faults", str(tmp_path)]  # whoever changes nothing finds nothing
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    inputs, edges = map(int, re.findall(r": (\d+) inputs, (\d+) edges", done.stdout)[0])
    assert inputs > 2 and edges > 2
