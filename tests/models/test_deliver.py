from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from automl_tl.deliver import _format, export_trial
from automl_tl.deliver_ensemble import export_ensemble
from automl_tl.errors import ExportError, UsageError
from automl_tl.facts import FACTS
from automl_tl.specs import BackendSpec
from automl_tl.study import StudyDirectory
from tests.report.conftest import fill, make
from tests.report.test_together import keep


@pytest.fixture
def backend():
    formats = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
    return BackendSpec("torch", load=NotImplemented, formats=formats)


def test_the_suffix_tells_the_format(backend):
    assert _format(backend, Path("out.pt2")) == "torch"
    assert _format(backend, Path("OUT.ONNX")) == "onnx"
    assert _format(backend, Path("out")) == "onnx"


def test_a_format_of_another_backend_is_told_with_those_that_there_are(backend):
    pattern = r"a torch model, onnx \(\.onnx\), torch \(\.pt2\), safetensors .*got out\.tflite"
    with pytest.raises(UsageError, match=pattern):
        _format(backend, Path("out.tflite"))


def test_a_twin_names_the_trial_that_has_its_model(tmp_path):
    study = optuna.create_study(direction="maximize")
    for facts in ({}, {"twin_of": 0}):
        trial = study.ask()
        trial.set_user_attr(FACTS, facts)
        study.tell(trial, 0.5)
    directory = StudyDirectory(tmp_path / "s", None)
    with pytest.raises(ExportError, match=r"Trial 1 of s took over .* of trial 0, .*--trial 0"):
        export_trial(directory, None, study, None, tmp_path / "m.onnx", None, 1)
    with pytest.raises(ExportError, match="Trial 2 of s did not finish"):
        export_trial(directory, None, study, None, tmp_path / "m.onnx", None, 2)


def test_a_destination_that_cannot_be_is_refused_before_any_work(tmp_path):
    made = fill(make(tmp_path), 2)
    for number in range(2):
        keep(made, number)
    asked = (made.directory, made.data, made.study, made.store)
    for name, sentence in (("x" * 253, "too long"), ("m.onnx", "is a folder")):
        (tmp_path / "m.onnx").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=sentence):
            export_trial(*asked, tmp_path / name, None, 0)
        with pytest.raises(UsageError, match=sentence):
            export_ensemble(*asked, tmp_path / name)
    with pytest.raises(UsageError, match=r"Expected a format .* got 'gif'"):
        export_trial(*asked, tmp_path / "model", "gif", 0)
