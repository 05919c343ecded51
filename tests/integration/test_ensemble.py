"""An ensemble of a real study: shown, exported as one file, and counted as a look at the test."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_tl import metrics
from automl_tl.identify import identify
from automl_tl.study import StudyDirectory
from tests.commandline import CommandLine
from tests.conftest import CLASSES

QUICK = ("--trials", "2", "--set", "epochs=2", "--set", "warmup_epochs=2", "--set", "depth=0")

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


def complete_each_other(folder: Path, lost: int = 0) -> None:
    """Let each of two trials be unsure and wrong where the other one is sure and right.

    On the ``lost`` first images both are.
    """
    directory = StudyDirectory.open(folder)
    data = directory.data()
    labels = data.labels[data.rows("validation")]
    right = 4 * np.eye(len(data.classes), dtype=np.float32)[labels]
    wrong = 0.5 * np.eye(len(data.classes), dtype=np.float32)[(labels + 1) % len(data.classes)]
    first = (np.arange(len(labels)) % 2 == 0)[:, None]
    for number, sure in enumerate((first, ~first)):
        sure[:lost] = False
        np.save(directory.trial(number) / "validation_logits.npy", np.where(sure, right, wrong))


def test_an_ensemble_is_shown_and_exported(cli: CommandLine, photos: Path, study: Path) -> None:
    check_an_ensemble(cli, photos, study, {"torch/tiny"})


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
    assert "validation accuracy 1.0000" in printed and "all 2 trials would reach 1.0000" in printed
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
    refused = cli.run("export", "s", "-o", "e.onnx", code=2)
    assert "to compute what it did while it was trained" in refused
    assert not (cli.folder / "e.onnx").exists()

    complete_each_other(study, lost=3)
    for name, of, ensemble in (("one", trained.name, ()), ("both", "s", ("--ensemble",))):
        printed = cli.run("export", of, *ensemble, "--calibrate", "-o", f"{name}.onnx")
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
