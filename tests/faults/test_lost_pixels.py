"""Decoded images that leave the cache while a search reads them: they are decoded anew."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.faults.conftest import SEARCH, facts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine
    from tests.faults.conftest import Faults

TUNED = (*SEARCH, "--set", "depth=1", "--set", "epochs=2", "--set", "head_layers=0")


def test_a_search_goes_on_when_the_cache_loses_its_pixels(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    """They go in the first epoch, before the second trial and before the test."""
    faults.cause("pixels lost in an epoch")
    faults.cause("pixels lost after a trial", times=2)
    told = cli.run("search", str(photos), *TUNED, "--trials", "2")
    assert "failed" not in told and "Warning" not in told
    assert (faults.folder / "pixels lost after a trial").read_text() == "0"
    found = facts(cli)
    assert found["state"]["complete"] == 2
    assert found["best"]["test"]["n"] > 0


def test_pixels_that_cannot_be_made_anew_end_a_search_in_one_sentence(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    mine = faults.folder / "photos"
    shutil.copytree(photos, mine)
    faults.cause("pixels lost after a trial")
    faults.cause("images lost after a trial")
    sentence = cli.run("search", str(mine), *TUNED, "--trials", "5", code=2)
    assert "are needed again, because the cache no longer has them" in sentence
    assert facts(cli)["state"]["complete"] == 1
