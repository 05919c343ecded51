"""Trials that hang, crash, eat memory or give no number."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.commandline import tree
from tests.faults.conftest import SEARCH, facts

if TYPE_CHECKING:
    from tests.commandline import CommandLine
    from tests.faults.conftest import Faults

TUNED = (*SEARCH, "--set", "depth=1", "--set", "epochs=3")


@pytest.mark.slow
def test_a_trial_that_hangs_costs_itself(cli: CommandLine, photos: Path, faults: Faults) -> None:
    faults.cause("hang")
    cli.run("search", str(photos), *TUNED, "--trials", "2", "--trial-timeout", "10s")
    found = facts(cli)
    hung, good = found["trials"]
    assert hung["state"] == "failed"
    assert hung["reason"] == (
        "it took longer than 10s and did not stop when it was asked to, so its process was ended"
    )
    assert good["state"] == "complete"
    assert good["retry_of"] is None
    assert found["best"]["test"] is not None


@pytest.mark.slow
def test_a_trial_that_takes_too_long_leaves_the_model_it_has(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("slow epoch", 1000)
    (cli.folder / "s.toml").write_text('trial_timeout = "10s"\nset = {epochs = 500, depth = 1}')
    cli.run("search", str(photos), *SEARCH, "--config", "s.toml", "--trials", "1")
    (trial,) = facts(cli)["trials"]
    assert (trial["state"], trial["stopped"]) == ("complete", "the trial's time is up")
    assert 0 < trial["epochs"] < trial["planned_epochs"]
    assert trial["duration_s"] < 60
    bounds = json.loads((cli.folder / "studies" / "s" / "bounds.json").read_text())
    assert bounds["trial_timeout"] == 10, "which `resume` without a bound takes up again"


@pytest.mark.slow
def test_the_time_holds_with_a_trial_that_hangs(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("hang")
    started = time.monotonic()
    process = cli.start("search", str(photos), *TUNED, "--time", "30s")
    faults.wait("hang", process)
    below = tree(process)
    out, err = process.communicate(timeout=120)
    assert time.monotonic() - started < 75
    assert process.returncode == 0, err
    assert "No trial is complete yet" in out
    (trial,) = [t for t in facts(cli)["trials"] if t["state"] == "failed"]
    assert trial["reason"] == "the search was stopped"
    psutil.wait_procs(below, timeout=10)
    assert not [one for one in below if one.is_running()]


def test_a_segfault_costs_a_trial_that_is_tried_again_once(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("segfault", 2)
    cli.run("search", str(photos), *TUNED, "--trials", "3")
    first, again, *rest = facts(cli)["trials"]
    assert "The faulty process died (killed by SIGSEGV)" in first["reason"]
    assert again["state"] == "failed", "the second segfault"
    assert {trial["state"] for trial in rest} == {"complete"}
    assert [t["retry_of"] for t in (first, again, *rest)].count(first["number"]) == 1


def test_no_number_is_a_failed_trial_that_says_so(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("nan")
    cli.run("search", str(photos), *TUNED, "--trials", "2")
    first, second = facts(cli)["trials"]
    assert first["state"] == "failed" and "finite" in first["reason"]
    assert second["state"] == "complete"


@pytest.mark.slow
def test_a_trial_that_eats_memory_costs_itself(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    """Allocations are refused: ``RLIMIT_AS`` holds for every process of the search."""
    faults.cause("memory")
    limit = ("sh", "-c", 'ulimit -v 1500000; exec "$@"', "sh")
    process = cli.under(limit, "search", str(photos), *TUNED, "--trials", "2")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    first, second = facts(cli)["trials"]
    assert first["state"] == "failed" and "MemoryError" in first["reason"]
    assert second["state"] == "complete"


@pytest.mark.slow
def test_a_machine_out_of_memory_loses_the_framework_alone(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    """The kernel's own choice of a victim, in a control group with 700 MB."""
    group = Path("/sys/fs/cgroup/memory") / f"automl-tl-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory control group can be made here ({error.strerror})")
    try:
        (group / "memory.limit_in_bytes").write_text("700M")
        faults.cause("memory")
        join = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        process = cli.under(join, "search", str(photos), *TUNED, "--trials", "2")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "worker 0 died" not in err
        first, *rest = facts(cli)["trials"]
        assert "The faulty process died (killed by SIGKILL)" in first["reason"]
        assert [trial["state"] for trial in rest] == ["complete", "complete"]
    finally:
        group.rmdir()


@pytest.mark.slow
def test_the_time_holds_with_a_worker_that_hangs(
    cli: CommandLine, photos: Path, faults: Faults
) -> None:
    faults.cause("slow epoch", 1000)
    started = time.monotonic()
    process = cli.start("search", str(photos), *TUNED, "--time", "30s")
    faults.wait("slow epoch", process)
    below = tree(process)
    (worker,) = [one for one in below if "automl_tl.worker" in " ".join(one.cmdline())]
    worker.suspend()
    process.communicate(timeout=90)
    assert time.monotonic() - started < 75
    assert not psutil.wait_procs(below, timeout=10)[1]
    cli.run("resume", "s", "--trials", "1", "--trial-timeout", "20s")
    assert facts(cli)["state"]["running"] == 0
