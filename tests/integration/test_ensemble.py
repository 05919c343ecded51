"""An ensemble of a real study: shown, exported as one file, and counted as a look at the test."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from automl_tl import ensemble_trials, metrics
from automl_tl.api import Study
from automl_tl.cache.entry import checksum
from automl_tl.ensemble import select
from automl_tl.identify import identify
from automl_tl.study import StudyDirectory, seal
from tests.commandline import CommandLine
from tests.conftest import CLASSES

QUICK = ("--trials", "2", "--set", "epochs=30", "--set", "warmup_epochs=30", "--set", "depth=0")

needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("automl_tl_keras") is None, reason="the Keras plugin is not installed"
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, cache: Path, photos: Path) -> Path:
    """Return a study of two trials."""
    folder = tmp_path_factory.mktemp("searched")
    CommandLine(folder, cache).run(
        "search", str(photos), "--study", "s", "--backbone", "torch/tiny", *QUICK
    )
    return folder / "studies" / "s"


@pytest.fixture
def study(searched: Path, cli: CommandLine) -> Path:
    """Return a copy of it that a test may change."""
    return Path(shutil.copytree(searched, cli.folder / "studies" / "s"))


def complete_each_other(folder: Path, *, all_right: bool = True) -> None:
    """Draw each of two trials to another class, so far that only their mean gets both right.

    Or, but for ``all_right``, more than either of them. The models change with what they recorded.
    """
    directory = StudyDirectory.open(folder)
    data = directory.data()
    labels = data.labels[data.rows("validation")]
    logits = [np.load(directory.trial(n) / "validation_logits.npy") for n in (0, 1)]
    classes = np.eye(len(data.classes), dtype=np.float32)
    forces = np.linspace(0, 12, 49, dtype=np.float32)
    for classes_drawn in itertools.permutations(classes, 2):
        for far in itertools.product(forces, forces):
            drawn = [force * one for force, one in zip(far, classes_drawn, strict=True)]
            found = select([a + b for a, b in zip(logits, drawn, strict=True)], labels, "accuracy")
            if found.draws == {0: 1, 1: 1} and (found.value == 1) == all_right:
                for number, bias in enumerate(drawn):
                    add_bias(directory, number, bias)
                return
    pytest.fail("no two biases make an ensemble")


def add_bias(directory: StudyDirectory, number: int, bias: Any) -> None:
    """Add to a kept model's logits, and to those that are stored."""
    for file in directory.trial(number).glob("*_logits.npy"):
        np.save(file, np.load(file) + bias)
    path = directory.model(number)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    (own,) = [name for name in tensors if name.startswith("head.") and name.endswith("bias")]
    save_file({**tensors, own: tensors[own] + bias}, path, metadata)
    seal(path).write_text(f"{checksum(path):08x}\n")


def test_an_ensemble_is_shown_and_exported(cli: CommandLine, photos: Path, study: Path) -> None:
    check_an_ensemble(cli, photos, study, {"torch/tiny"})


def test_no_more_than_the_best_trials_are_considered(
    study: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete_each_other(study)
    monkeypatch.setenv("AUTOML_TL_CACHE", str(cache))
    monkeypatch.setattr(ensemble_trials, "CONSIDERED", 1)
    made = Study.open(study).export_ensemble(study / "both.onnx")
    assert (made.validation, made.trials) == (1.0, 1)
    assert made.reachable < 1


@needs_keras
@pytest.mark.slow
def test_an_ensemble_of_two_frameworks_is_shown_and_exported(
    cli: CommandLine, photos: Path
) -> None:
    backbones = ("--backbone", "keras/tiny", "--backbone", "torch/tiny")
    cli.run("search", str(photos), "--study", "s", *backbones, *QUICK)
    check_an_ensemble(cli, photos, cli.folder / "studies" / "s", {"keras/tiny", "torch/tiny"})


def check_an_ensemble(cli: CommandLine, photos: Path, folder: Path, backbones: set[str]) -> None:
    complete_each_other(folder)
    facts = cli.show("s")
    assert facts["ensemble"]["value"] == 1.0
    assert [one["weight"] for one in facts["ensemble"]["members"]] == [0.5, 0.5]
    line = r"An ensemble of trials [01], [01] reaches accuracy 1\.0000 on validation \(best trial "
    assert re.search(line, cli.run("show", "s"))
    before = facts["best"]["test_evaluations"]

    printed = cli.run("export", "s", "--ensemble", "-o", "both.onnx")
    assert "agrees with the mean of its members on" in printed
    assert "validation accuracy 1.0000" in printed
    assert "any of the best 2 trials would reach 1.0000" in printed
    told = identify(cli.folder / "both.onnx").facts
    assert (told.backbone, told.classes) == ("ensemble", tuple(CLASSES))
    assert {one["backbone"] for one in told.extra["members"]} == backbones
    result = StudyDirectory.open(folder).result()
    assert result is not None and result["evaluations"] == before + 1
    assert result["ensemble"]["test"] == told.test

    measured = json.loads(cli.run("evaluate", "both.onnx", str(photos), "--json"))
    assert measured["n"] == facts["data"]["images"]
    truth, mean = mean_on_test(folder)
    assert told.test["accuracy"] == pytest.approx((mean.argmax(axis=1) == truth).mean())

    cli.run("export", "s", "--ensemble", "-o", "again.onnx")
    result = StudyDirectory.open(folder).result()
    assert result is not None and result["evaluations"] == before + 1
    assert result["test"] == facts["best"]["test"]
    card = (cli.folder / "both.onnx.md").read_text(encoding="utf-8")
    assert (
        "weighted mean of those of 2 trials" in card and "Of each class on the test split" in card
    )


def test_a_temperature_goes_into_the_file(cli: CommandLine, study: Path) -> None:
    trained = shutil.copytree(study, cli.folder / "studies" / "trained")
    complete_each_other(study)
    refused = cli.run("export", "s", "--ensemble", "--calibrate", "-o", "e.onnx", code=2)
    assert "the ensemble gets" in refused and "leave out --calibrate" in refused
    assert not (cli.folder / "e.onnx").exists()

    shutil.rmtree(study)
    shutil.move(trained, study)
    complete_each_other(study, all_right=False)
    for name, ensemble in (("one", ()), ("both", ("--ensemble",))):
        printed = cli.run("export", "s", *ensemble, "--calibrate", "-o", f"{name}.onnx")
        assert ", calibrated, on" in printed and "    test: calibration error 0." in printed
        facts = identify(cli.folder / f"{name}.onnx").facts
        done = facts.extra["calibration"]
        temperature = done["temperature"]
        assert f"divided by the temperature {temperature:.4f}, fitted on the" in printed
        assert abs(temperature - 1) > 0.02 and set(done["splits"]) == {"validation", "test"}
        for split, figures in (("validation", facts.validation), ("test", facts.test)):
            assert figures["log_loss"] == done["splits"][split]["log_loss"]["after"]
        loss = done["splits"]["validation"]["log_loss"]
        assert loss["after"] < loss["before"] - 1e-3
    truth, mean = mean_on_test(study)
    divided = np.log(mean.astype(np.float32)) / np.float32(temperature)
    assert facts.test["log_loss"] == pytest.approx(metrics.value(divided, truth, "log_loss"))


def test_a_model_that_does_not_compute_what_it_recorded_is_refused(
    cli: CommandLine, study: Path
) -> None:
    complete_each_other(study)
    for number in (0, 1):
        path = StudyDirectory.open(study).trial(number) / "validation_logits.npy"
        np.save(path, 2 * np.load(path))
    for options in ((), ("--ensemble",)):
        refused = cli.run("export", "s", *options, "-o", "e.onnx", code=2)
        assert "to compute what it did while it was trained" in refused
    assert not (cli.folder / "e.onnx").exists()


def mean_on_test(folder: Path) -> tuple[Any, Any]:
    directory = StudyDirectory.open(folder)
    data = directory.data()
    logits = [np.load(directory.trial(n) / "test_logits.npy") for n in (0, 1)]
    mean = np.mean([metrics.probabilities(one) for one in logits], axis=0)
    return data.labels[data.rows("test")], mean


def test_no_ensemble_is_made_where_none_helps(cli: CommandLine, study: Path) -> None:
    directory = StudyDirectory.open(study)
    best = np.load(directory.trial(0) / "validation_logits.npy")
    np.save(directory.trial(1) / "validation_logits.npy", best)
    assert cli.show("s")["ensemble"] is None
    assert "An ensemble" not in cli.run("show", "s")
    for arguments, told in (
        (("-o", "e.onnx"), "better than trial 0 on validation"),
        (("-o", "e.tflite"), "Expected an ONNX file for an ensemble"),
        (("-o", "e.onnx", "--trial", "1"), "leave out --trial"),
        (("-o", "e.keras", "--format", "keras"), "leave out --format"),
    ):
        assert told in cli.run("export", "s", "--ensemble", *arguments, code=2)
    directory.model(1).unlink()
    assert "that of trial 0" in cli.run("export", "s", "--ensemble", "-o", "e.onnx", code=2)
    assert not (cli.folder / "e.onnx").exists()
