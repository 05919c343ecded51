"""Real searches with the backbone that ships."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from optuna.trial import TrialState

from automl_tl import Study, storage
from automl_tl.facts import FACTS
from automl_tl.networks import choose_backbones
from tests.commandline import ONE_HEAD, tree
from tests.conftest import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from tests.commandline import CommandLine

QUICK = ("--backbone", "torch/tiny", "--set", "epochs=2..4", "--set", "warmup_epochs=2")
HOST = "automl_tl.hosted"
"""What a framework's process runs."""
LONG = ("--backbone", "torch/tiny", "--set", "epochs=500", "--set", "depth=1")


def test_a_search_begins_with_the_trials_it_is_given(cli: CommandLine, photos: Path) -> None:
    (cli.folder / "mine.toml").write_text(
        """
        set = {warmup_epochs = 2, epochs = "2..4"}
        [[first]]
        depth = 0
        optimizer = "sgd"
        learning_rate = 0.01
        [[first]]
        depth = 0
        head_units = 64
        epochs = 3
        """
    )
    wrong = ("--set", "optimizer=adam")
    search = ("search", str(photos), "--config", "mine.toml", "--backbone", "torch/tiny")
    sentence = cli.run(*search, *wrong, code=2)
    assert "Trial 1 of those to begin with: optimizer: expected" in sentence
    cli.run(*search, "--study", "mine", "--trials", "1")
    cli.run("resume", "mine", "--trials", "3")
    one, two, three = (trial["params"] for trial in cli.show("mine")["trials"])
    assert (one["optimizer"], one["learning_rate"], one["head_units"]) == ("sgd", 0.01, [])
    assert (two["optimizer"], two["head_units"], two["epochs"]) == ("adam", [64], 3)
    assert three not in (one, two)


def test_a_search_ends_in_a_model_and_repeats_itself(cli: CommandLine, photos: Path) -> None:
    for study in ("one", "two"):
        cli.run("search", str(photos), "--study", study, "--trials", "3", *QUICK)
    one, two = cli.show("one"), cli.show("two")
    assert one["state"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    assert one["classes"] == list(CLASSES)
    assert [t["number"] for t in one["trials"]] == list(range(3))
    for first, second in zip(one["trials"], two["trials"], strict=True):
        assert first["params"] == second["params"]
        assert first["value"] == second["value"]
        assert first["trainable_parameters"] <= first["total_parameters"]
        assert 0 <= first["fine_tune_at"] <= first["layers"]
    best = one["best"]
    study = storage.open_optuna(cli.folder / "studies" / "one", None, "one", 0)
    for trial in storage.best_trials(study):
        facts = trial.user_attrs[FACTS]
        assert facts["closing_seconds"] > facts["total_parameters"] / 50e6
        assert facts["head_scale"] not in (0, 1)
    assert best["value"] == max(trial["value"] for trial in one["trials"])
    assert best["test"]["n"] == sum(row["test"] for row in one["data"]["counts"].values())
    low, high = best["test"]["interval"]
    assert low <= best["test"]["accuracy"] <= high
    assert two["reuse"]["prefix_images"] == 0
    assert two["reuse"]["decoded"] == 0

    cli.run("export", "one", "-o", "model.onnx")
    image = photos / "circle" / "000.png"
    predicted = json.loads(cli.run("predict", "model.onnx", str(image), "--json"))
    assert "circle" in json.dumps(predicted)


def test_time_holds_and_leaves_a_model(cli: CommandLine, photos: Path) -> None:
    started = time.monotonic()
    cli.run("search", str(photos), "--study", "s", "--time", "25s", *LONG)
    assert time.monotonic() - started < 35
    facts = cli.show("s")
    assert facts["best"]["test"] is not None
    stopped = facts["trials"][0]
    assert stopped["stopped"] == "the time is up"
    assert 0 < stopped["epochs"] < stopped["planned_epochs"]
    sentence = f"stopped at epoch {stopped['epochs']} of {stopped['planned_epochs']}: the time is"
    assert sentence in cli.run("show", "s")
    cli.run("export", "s", "-o", "m.safetensors")


def test_a_download_that_hangs_leaves_time_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the time goes to downloads at most; what is here is searched in the other half."""
    said: list[str] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        started = time.monotonic()
        patterns = ("torch/tiny", "torch/squeezenet1_0", "torch/squeezenet1_1")
        chosen = choose_backbones(patterns, {}, False, said.append, started + 12)
        assert 5 < time.monotonic() - started < 11
    assert list(chosen) == ["torch/tiny"]
    assert [sentence.partition(":")[0] for sentence in said] == [*patterns[1:]]
    assert all("in half of the time: give more with --time" in sentence for sentence in said)


def test_a_copied_study_goes_by_its_new_name(cli: CommandLine, photos: Path) -> None:
    cli.run("search", str(photos), "--study", "old", "--trials", "1", *QUICK)
    shutil.copytree(cli.folder / "studies" / "old", cli.folder / "studies" / "new")
    process = cli.start("resume", "new", "--trials", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    out += cli.run("show", "new") + cli.run(
        "export", "new", "-o", "a.onnx", "--trial", "77", code=2
    )
    assert "study new resumes with 1 finished trial:" in err
    assert "automl-tl show new" in out
    assert "old" not in out + err
    assert len(cli.show("old")["trials"]) == 1


def test_ctrl_c_stops_cleanly_and_resume_goes_on(cli: CommandLine, photos: Path) -> None:
    process = cli.start("search", str(photos), "--study", "s", "--trials", "3", *LONG)
    _wait_for_epoch(process, cli)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume" in err
    assert not [p for p in psutil.process_iter(["ppid"]) if p.info["ppid"] == process.pid]
    before = len(cli.show("s")["trials"])
    cli.run("resume", "s", "--trials", str(before), "--time", "30s")
    assert cli.show("s")["state"]["running"] == 0


def test_killing_everything_loses_no_finished_trial(cli: CommandLine, photos: Path) -> None:
    arguments = ("search", str(photos), "--study", "s", "--trials", "4", *QUICK)
    process = cli.start(*arguments, "--set", "depth=1", "--set", "epochs=20")
    _wait_until(process, lambda: bool(_trials(cli, TrialState.COMPLETE)), "a trial is complete")
    _wait_until(process, lambda: bool(_trials(cli, TrialState.RUNNING)), "another one runs")
    for one in tree(process):
        one.kill()
    process.communicate()
    before = cli.show("s")
    finished = {t["number"]: t["value"] for t in before["trials"] if t["state"] == "complete"}
    running = [t["number"] for t in before["trials"] if t["state"] == "running"]
    assert running and before["interrupted"]
    told = cli.run("show", "s")
    assert "`automl-tl resume s` goes on" in told
    assert "interrupted" in told and "running" not in told
    cli.run("resume", "s")  # the bounds of before count again
    after = cli.show("s")
    assert [t["number"] for t in after["trials"]] == list(range(len(after["trials"])))
    values = {t["number"]: t["value"] for t in after["trials"]}
    assert {number: values[number] for number in finished} == finished
    for number in running:
        lost = after["trials"][number]
        assert (lost["state"], lost["reason"]) == ("failed", "its process died")
        assert [t for t in after["trials"] if t["retry_of"] == number and t["state"] != "failed"]
    assert after["state"]["complete"] + after["state"]["pruned"] == 4


def test_a_killed_worker_and_a_killed_framework_cost_one_trial_each(
    cli: CommandLine, photos: Path
) -> None:
    process = cli.start("search", str(photos), "--study", "s", "--time", "90s", *LONG)
    _wait_for_epoch(process, cli)

    def failed(reason: str) -> bool:
        trials = Study.open(cli.folder / "studies" / "s").summary()["trials"]
        return any(str(t["reason"]).startswith(reason) for t in trials)

    first = "The torch process died (killed by SIGKILL)"
    _kill(process, HOST)
    _wait_until(process, lambda: failed(first), f"a trial failed: {first}")
    _wait_for_epoch(process, cli)
    _kill(process, "automl_tl.worker")
    _wait_until(process, lambda: failed("its process died"), "a trial failed: its process died")
    _wait_for_epoch(process, cli)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    facts = cli.show("s")
    assert len([t for t in facts["trials"] if "process died" in str(t["reason"])]) == 2
    assert facts["best"] is not None


def test_a_search_explains_itself(cli: CommandLine, photos: Path) -> None:
    process = cli.start(
        *("search", str(photos), "--study", "s", "--trials", "2", "--backbone", "torch/tiny"),
        *("--set", "epochs=2", "--set", "warmup_epochs=1", "--explain"),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Trial 0, torch/tiny: head on stored pooled features." in err
    assert "Trial 1, torch/tiny: fine-tuning from " in err
    assert "pixels: layers below in every epoch" in err


def test_a_second_search_on_the_same_study_is_refused(cli: CommandLine, photos: Path) -> None:
    process = cli.start("search", str(photos), "--study", "s", "--time", "60s", *LONG)
    _wait_for_epoch(process, cli)
    assert not cli.show("s")["interrupted"]
    assert "Another search is at work" in cli.run("resume", "s", "--trials", "3", code=2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "fine_tune_at=nowhere"), "has no layer 'nowhere'"),
    ],
)
def test_a_study_where_nothing_can_succeed_says_why(
    cli: CommandLine, photos: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    err = cli.run(
        "search", str(photos), "--backbone", "torch/tiny", "--trials", "9", *arguments, code=2
    )
    assert sentence in err
    assert "Traceback" not in err


def test_a_trial_that_was_tried_before_is_not_computed_again(
    cli: CommandLine, photos: Path
) -> None:
    settings = (*ONE_HEAD, "--set", "epochs=3")
    command = ("--backbone", "torch/tiny", "--study", "s", "--trials", "3", *settings)
    cli.run("search", str(photos), *command)
    first, second, third = cli.show("s")["trials"]
    assert first["notes"] == []
    assert second["notes"] == third["notes"]
    assert second["notes"] == ["the same trial as 0, whose figures it takes over"]
    assert first["value"] == second["value"] == third["value"]
    assert cli.show("s")["best"]["trial"] == 0


def _wait_until(process, happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline, f"not in two minutes: {what}"
        time.sleep(0.1)


def _trials(cli: CommandLine, *states: TrialState) -> list[FrozenTrial]:
    folder = cli.folder / "studies" / "s"
    if not (folder / "study.toml").exists():
        return []
    return storage.open_optuna(folder, None, "s", 0).get_trials(deepcopy=False, states=states)


def _wait_for_epoch(process, cli: CommandLine) -> None:
    _wait_until(
        process,
        lambda: any(trial.intermediate_values for trial in _trials(cli, TrialState.RUNNING)),
        "a trial that runs has trained an epoch",
    )


def _runs(process: psutil.Process, module: str) -> bool:
    with suppress(psutil.Error):  # it may end meanwhile
        return module in " ".join(process.cmdline())
    return False


def _kill(process, module: str) -> None:
    for one in tree(process):
        if _runs(one, module):
            one.kill()
            return
    raise AssertionError(f"no {module} runs")
