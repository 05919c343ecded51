"""Frozen trials: trained together, kept as heads, whole when it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open

from automl_tl import Study, kept, storage
from automl_tl.cache.store import Store
from automl_tl.engines.local import LocalEngine
from automl_tl.errors import StudyError
from automl_tl.host import BackendHost
from automl_tl.identify import identify
from automl_tl.machine import available_cpus
from automl_tl.owner import OWNER
from automl_tl.prepare import open_arrays
from automl_tl.study import KEEP_MODELS, StudyDirectory
from tests.commandline import ONE_HEAD, CommandLine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STARTED = """
import os, sys
if sys.argv[0].endswith("hosted.py"):
    with open(os.path.join({folder!r}, str(os.getpid())), "w") as file:
        file.write(os.environ["OMP_NUM_THREADS"])
"""
FROZEN = ("--backbone", "torch/tiny", "--set", "depth=0", "--set", "epochs=2..9")


def test_frozen_trials_are_recorded_each_on_its_own(tmp_path: Path, photos: Path) -> None:
    cli = CommandLine(tmp_path, tmp_path / "cache")  # of its own: the first search finds nothing
    for study in ("one", "two"):
        cli.run("search", str(photos), "--study", study, "--trials", "12", *FROZEN)
    one, two = cli.show("one"), cli.show("two")
    assert one["state"] == {"complete": 12, "pruned": 0, "failed": 0, "running": 0}
    assert [t["value"] for t in one["trials"]] == [t["value"] for t in two["trials"]]
    assert all(t["epochs"] == t["params"]["epochs"] + 30 for t in one["trials"])
    assert all(t["duration_s"] < 5 for t in one["trials"][1:])
    assert one["reuse"]["prefix_passes"] == 2
    assert two["reuse"]["prefix_passes"] == 0
    for trial in one["trials"]:
        folder = cli.folder / "studies" / "one" / "trials" / f"{trial['number']:05d}"
        assert (folder / "history.json").is_file()
        assert len(np.load(folder / "validation_logits.npy")) == trial["validation"]["n"]


def test_equal_trials_that_are_asked_for_at_once_are_trained_once(
    cli: CommandLine, photos: Path
) -> None:
    settings = (*ONE_HEAD, "--set", "epochs=2,3")
    command = ("--backbone", "torch/tiny", "--study", "s", "--trials", "9", *settings)
    cli.run("search", str(photos), *command)
    trials = cli.show("s")["trials"]
    first: dict[int, int] = {}
    for trial in trials:
        epochs = trial["params"]["epochs"]
        same = first.setdefault(epochs, trial["number"])
        twin = trial["number"] != same
        assert trial["notes"] == [
            f"the same trial as {same}, whose figures it takes over" for _ in range(twin)
        ]
    assert len(trials) == 9
    assert set(first) == {2, 3}


def test_a_trial_that_waited_for_a_batch_did_not_take_its_time(
    cli: CommandLine, photos: Path
) -> None:
    command = ("--study", "s", "--trials", "12", *FROZEN, "--set", "image_size=32,40")
    cli.run("search", str(photos), *command)
    trials = storage.open_optuna(cli.folder / "studies" / "s", None, "s", 0).trials
    began = min(trial.datetime_start.timestamp() for trial in trials)
    ended = max(trial.datetime_complete.timestamp() for trial in trials)
    spent = sum(trial.user_attrs["facts"]["duration_s"] for trial in trials)
    assert 0 < spent <= ended - began + 0.1


def test_of_several_workers_one_starts_the_framework(tmp_path: Path, photos: Path) -> None:
    """It has all CPUs, the others train heads on what it stored; at the end another may test."""
    started = tmp_path / "started"
    started.mkdir()
    plugin = tmp_path / "started.py"
    plugin.write_text(STARTED.format(folder=str(started)))
    cli = CommandLine(tmp_path, tmp_path / "cache")
    several = ("--workers", "3", "--trials", "40", "--plugin", str(plugin))
    cli.run("search", str(photos), "--study", "s", *FROZEN, *several)
    study = storage.open_optuna(cli.folder / "studies" / "s", None, "s", 0)
    ends = [trial.datetime_complete for trial in study.trials]
    last = max(end.timestamp() for end in ends if end)
    first = [path for path in started.iterdir() if path.stat().st_mtime < last]
    assert [path.read_text() for path in first] == [str(available_cpus())]
    assert len({trial.user_attrs[OWNER]["pid"] for trial in study.trials}) > 1


def test_the_best_are_whole_models_in_the_end_and_a_head_becomes_one_on_demand(
    cli: CommandLine, photos: Path, cache: Path
) -> None:
    cli.run("search", str(photos), "--study", "s", "--trials", "5", *FROZEN)
    directory = StudyDirectory.open(cli.folder / "studies" / "s")
    data = directory.data()
    best = storage.best_trials(storage.open_optuna(directory.path, None, "s", 0))
    assert [directory.model(trial.number).is_file() for trial in best] == (
        [True] * KEEP_MODELS + [False] * 2
    )
    assert not list(directory.path.glob("trials/*/head.safetensors"))

    number = best[0].number
    model = directory.model(number)
    store = Store(cache)
    (pixels, _) = next(iter(open_arrays(directory, data, store).values()))
    images = np.load(pixels)
    tested = np.load(directory.trial(number) / "test_logits.npy")
    with BackendHost("torch", device="cpu") as host:
        whole = host.load(model).logits(images[data.rows("test")])
        np.testing.assert_allclose(tested, whole, rtol=1e-3, atol=1e-3)

        facts = identify(model).facts
        with safe_open(model, "numpy") as file:
            names = sorted(n for n in file.keys() if n.startswith("head."))
            arrays = {name: file.get_tensor(name) for name in names}
        weights = [
            array
            for name in names
            if name.endswith("weight")
            for array in (arrays[name].T.copy(), arrays[name.replace("weight", "bias")])
        ]
        model.unlink()
        kept.write_model(directory, number, tuple(weights), facts.metadata())
        assert kept.model_file(directory, number) == directory.head(number)
        assert "agrees with the trained model" in cli.run("export", "s", "-o", "m.onnx")
        assert model.is_file()
        assert not directory.head(number).exists()
        again = host.load(model).logits(images[data.rows("test")])
        np.testing.assert_array_equal(again, whole)


def test_one_worker_finishes_and_the_others_let_their_frameworks_go(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))
    sent: dict[str, set[int]] = {}
    genuine = LocalEngine.send

    def send(self: LocalEngine, index: int, message: Mapping[str, Any]) -> None:
        sent.setdefault(message["do"], set()).add(index)
        genuine(self, index, message)

    monkeypatch.setattr(LocalEngine, "send", send)
    settings = {"depth": 0, "epochs": 1}
    study = Study.create(tmp_path / "s", photos, backbones=["torch/tiny"], settings=settings)
    found = study.search(trials=4, workers=2, device="cpu")
    assert found["best"]["test"] is not None
    assert sent["finish"] == {0} and sent["rest"] == {1}


def test_a_framework_has_all_cpus_only_where_the_other_workers_wait(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two backbones have two passes, which two workers may do at once."""
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("automl_tl.first_message.available_cpus", lambda: 6)
    granted: list[int] = []

    def start(self: LocalEngine, index: int) -> None:
        granted.append(self._settings.setup(index).host_threads)
        raise StudyError("seen enough")

    monkeypatch.setattr(LocalEngine, "start", start)
    for name, backbones in {"one": ["torch/tiny"], "two": ["torch/tiny", "keras/tiny"]}.items():
        study = Study.create(tmp_path / name, photos, backbones=backbones, settings={"depth": 0})
        with pytest.raises(StudyError, match="seen enough"):
            study.search(trials=4, workers=2, device="cpu")
    assert granted == [6, 3]
