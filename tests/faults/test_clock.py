"""A wall clock that jumps by hours while a search runs: no bound and no trial is measured by it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.commandline import CommandLine
from tests.faults.conftest import SEARCH, facts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Faults

JUMPS = """
import datetime, itertools, time

genuine, jumps = time.time, itertools.cycle((0, 7200, -10800, 86400))
time.time = lambda: genuine() + next(jumps)


class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)


datetime.datetime = Jumping
"""


@pytest.fixture
def jumping(tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line where every look at the wall clock finds another jump, in all processes."""
    (tmp_path / "patched").mkdir()
    (tmp_path / "patched" / "sitecustomize.py").write_text(JUMPS)
    path = (str(tmp_path / "patched"), os.environ["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return CommandLine(tmp_path, tmp_path / "cache")


@pytest.mark.slow
def test_bounds_and_trials_do_not_heed_the_wall_clock(
    jumping: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("slow epoch", 1000)
    tuned = ("--set", "depth=1", "--set", "epochs=500", "--trial-timeout", "12s")
    started = time.monotonic()
    jumping.run("search", str(photos), *SEARCH, *tuned, "--trials", "1", "--time", "5m")
    assert 3 < time.monotonic() - started < 120
    found = facts(jumping)
    (trial,) = found["trials"]
    assert (trial["state"], trial["stopped"]) == ("complete", "the trial's time is up")
    assert 0 < trial["duration_s"] < 60
    assert found["best"]["test"] is not None
    jumping.run("report", "s")
