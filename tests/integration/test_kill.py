"""``kill -9`` of everything, ten times at random moments of one study."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.commandline import tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine

KILLS = 10
TRIALS = 60


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_lose_no_finished_trial(cli: CommandLine, photos: Path) -> None:
    draw = random.Random(0)
    space = ("--backbone", "torch/tiny", "--set", "epochs=4..16", "--set", "depth=0.5..1")
    command = ("search", str(photos), "--study", "s", "--trials", str(TRIALS), *space)
    finished: dict[int, tuple[str, float | None]] = {}
    for kill in range(KILLS):
        process = cli.start(*command)
        time.sleep(draw.uniform(4, 14))
        for one in tree(process):
            one.kill()
        process.communicate()
        if not (cli.folder / "studies" / "s" / "study.toml").exists():
            continue
        command = ("resume", "s", "--trials", str(TRIALS))
        trials = cli.show("s")["trials"]
        now = {
            t["number"]: (t["state"], t["value"])
            for t in trials
            if t["state"] in {"complete", "pruned"}
        }
        print(f"kill {kill}: {len(finished)} finished before, {len(now)} after")
        assert {number: now[number] for number in finished} == finished
        finished = now
    cli.run(*command)
    facts = cli.show("s")
    trials = facts["trials"]
    end = {t["number"]: (t["state"], t["value"]) for t in trials}
    assert {number: end[number] for number in finished} == finished
    assert [t["number"] for t in trials] == list(range(len(trials)))
    lost = [t for t in trials if t["state"] == "failed"]
    print([(t["number"], t["retry_of"], t["reason"]) for t in lost])
    assert {t["reason"] for t in lost} <= {"its process died"}
    for trial in lost:
        again = [t for t in trials if t["retry_of"] == trial["number"]]
        assert len(again) == (0 if trial["retry_of"] is not None else 1)
    given_up = sum(1 for t in lost if t["retry_of"] is not None)
    assert facts["state"]["complete"] + facts["state"]["pruned"] + given_up == TRIALS
    assert facts["best"]["test"] is not None
    print(f"end: {facts['state']}, {len(lost)} lost and tried again, {given_up} given up")
