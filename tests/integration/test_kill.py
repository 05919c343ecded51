"""``kill -9`` at random moments of one study in its journal, of everything or of one process."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.commandline import tree

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.commandline import CommandLine

KILLS = 10
TRIALS = 60
SPACE = ("--backbone", "torch/tiny", "--set", "epochs=4..16", "--set", "depth=0.5..1")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_lose_no_finished_trial(cli: CommandLine, photos: Path) -> None:
    draw = random.Random(0)
    command: tuple[str, ...]
    command = ("search", str(photos), "--study", "s", "--trials", str(TRIALS), *SPACE)
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
        now = _finished(cli.show("s")["trials"])
        print(f"kill {kill}: {len(finished)} finished before, {len(now)} after")
        assert {number: now[number] for number in finished} == finished
        finished = now
    cli.run(*command)
    facts = _check(cli, finished, TRIALS)
    assert {t["reason"] for t in facts["trials"] if t["state"] == "failed"} <= {"its process died"}
    assert facts["best"]["test"] is not None


def _finished(trials: list[dict[str, Any]]) -> dict[int, tuple[str, float | None]]:
    ended = [t for t in trials if t["state"] in {"complete", "pruned"}]
    return {t["number"]: (t["state"], t["value"]) for t in ended}


def _given_up(trials: list[dict[str, Any]]) -> int:
    return sum(t["state"] == "failed" and t["retry_of"] is not None for t in trials)


def _check(cli: CommandLine, finished: dict[int, Any], bound: int) -> dict[str, Any]:
    """Check what must hold at the end, and return what ``show`` says."""
    facts = cli.show("s")
    trials = facts["trials"]
    end = {t["number"]: (t["state"], t["value"]) for t in trials}
    assert {number: end[number] for number in finished} == finished
    assert [t["number"] for t in trials] == list(range(len(trials)))
    lost = [t for t in trials if t["state"] == "failed"]
    print([(t["number"], t["retry_of"], t["reason"]) for t in lost])
    for trial in lost:
        again = [t for t in trials if t["retry_of"] == trial["number"]]
        assert len(again) == (0 if trial["retry_of"] is not None else 1), trial
    given_up = _given_up(trials)
    assert facts["state"]["complete"] + facts["state"]["pruned"] + given_up == bound
    print(f"end: {facts['state']}, {len(lost)} lost, {given_up} of them given up")
    return facts


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_kills_of_one_process_or_of_all(cli: CommandLine, photos: Path) -> None:
    """As in ``test_shared``: three workers, 200 trials; what is lost is tried again once."""
    draw = random.Random(1)
    start = ("search", str(photos), "--study", "s", *SPACE)
    bounds = ("--trials", "200", "--workers", "3")
    finished: dict[int, tuple[str, float | None]] = {}
    process: subprocess.Popen[str] | None = None
    for kill in range(60):
        while True:
            there = (cli.folder / "studies" / "s" / "study.toml").exists()
            if process is None or process.poll() is not None:
                process = cli.start(*(("resume", "s") if there else start), *bounds)
            found = cli.show("s")["trials"] if there else []
            now = _finished(found)
            if len(now) + _given_up(found) >= 200 * kill // 60:
                break
            time.sleep(0.5)
        assert {number: now[number] for number in finished} == finished
        finished = now
        time.sleep(draw.uniform(0, 4))
        victims = tree(process)
        if draw.random() < 0.6:
            victims = draw.sample(victims[1:], min(1, len(victims) - 1))
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        print(f"kill {kill}: of {len(victims)} processes; {len(now)} trials finished")
    if process and process.poll() is None:
        process.communicate(timeout=1800)
    cli.run("resume", "s", *bounds)
    _check(cli, finished, 200)
