from __future__ import annotations

import json
import os
from contextlib import nullcontext

import numpy as np
import pytest

from automl_tl.destination import move_into_place
from automl_tl.errors import ExportError, UsageError
from automl_tl.export import export_model, spread
from automl_tl.identify import identify
from automl_tl.parity import Recorded, compare
from automl_tl.predict import open_model
from tests.models.linear import (
    SUFFIXES,
    LinearBackend,
    needs_litert,
    write_folder,
)


def everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_an_export_is_proved_and_documented(export, tmp_path, pixels, trained, make_onnx):
    report = export("new/folders/flowers.onnx")
    folder = tmp_path / "new" / "folders"
    assert everything(folder) == ["flowers.onnx", "flowers.onnx.md"]
    assert report.path == folder / "flowers.onnx" and report.card == folder / "flowers.onnx.md"
    assert report.bytes == report.path.stat().st_size
    assert (report.images, report.agreement, report.ties) == (256, 256, 0)
    assert 0 <= report.difference <= 1e-3 * report.scale
    assert report.accuracy == pytest.approx(246 / 256)
    assert report.runtime == "onnxruntime"
    with open_model(report.path) as predictor:
        ours = predictor.logits(pixels)
    theirs = LinearBackend(make_onnx).load(trained).logits(pixels)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


CALIBRATION = {
    "temperature": 2.5,
    "fitted_on": "validation",
    "splits": {
        "validation": {
            "n": 120,
            "ece": {"before": 0.0912, "after": 0.0432},
            "log_loss": {"before": 0.7, "after": 0.6},
        }
    },
}


@pytest.mark.parametrize("name", ["out/m.onnx", "out/m.safetensors"])
def test_a_temperature_divides_the_logits_of_the_file(export, name, pixels, trained, make_onnx):
    format = name.rpartition(".")[2]
    report = export(name, format, extra={"calibration": CALIBRATION})
    assert (report.agreement, report.calibration) == (256, CALIBRATION)
    theirs = LinearBackend(make_onnx).load(trained).logits(pixels)
    opened = LinearBackend(make_onnx).load(report.path) if format == "safetensors" else None
    with nullcontext(opened) if opened else open_model(report.path) as model:
        np.testing.assert_allclose(model.logits(pixels) * 2.5, theirs, rtol=1e-4, atol=1e-3)
    assert identify(report.path).facts.extra["calibration"] == CALIBRATION
    text = report.card.read_text(encoding="utf-8")
    assert "the temperature 2.5, fitted on the validation" in text
    assert "| Validation (fitted here) | 9.1 % | 4.3 % | 0.700 | 0.600 | 120 |" in text
    assert "calibrated on images like those of the study" in text
    assert "not calibrated" not in text


def test_a_model_without_the_temperature_is_no_calibrated_one(export, tmp_path):
    with pytest.raises(ExportError, match="logits differ"):
        export(fault="not calibrated", extra={"calibration": CALIBRATION})
    assert everything(tmp_path / "out") == []
    text = export().card.read_text(encoding="utf-8")
    assert "probabilities are not calibrated" in text and "## Calibration" not in text


def test_an_export_says_how_far_it_is(trained, make_onnx, pixels, facts, tmp_path):
    said = []
    backend = LinearBackend(make_onnx)
    labels = np.zeros(len(pixels), np.int64)

    def stage(what, done, total, unit="images"):
        said.append((what, done, total))

    target = tmp_path / "m.onnx"
    export_model(trained, "onnx", target, backend, SUFFIXES, pixels, labels, facts, stage)
    assert list(dict.fromkeys(what for what, _, _ in said)) == [
        "starting torch",
        "running the trained model",
        "writing onnx",
        "checking the file with onnxruntime",
    ]
    running = [done for what, done, total in said if what.startswith("running") and total == 256]
    assert running == list(range(0, 256, 32))


def test_other_formats_are_proved_by_a_fresh_load(export):
    report = export("out/model.safetensors", "safetensors")
    assert (report.runtime, report.agreement) == ("torch", 256)
    assert identify(report.path).facts.study == "colours"
    with pytest.raises(ExportError, match="logits differ"):
        export("out/other.safetensors", "safetensors", "classes swapped")


@needs_litert
def test_litert_is_proved_by_its_own_interpreter(export):
    report = export("out/m.tflite", "litert")
    assert (report.runtime, report.agreement) == ("LiteRT", 256)
    with pytest.raises(ExportError, match="another class"):
        export("out/m.tflite", "litert", "classes swapped")


FAULTS = {
    "one per cent": r"logits differ by up to .* where .* is allowed.*0 images get another class",
    "classes swapped": r"[1-9]\d* images get another class",
    "nan": "NaN",
    "fixed batch": "but the graph has",
    "hidden fixed batch": r"expected logits of shape \(32, 3\), but got \(1, 3\)",
    "second file": "model.data",
    "nothing": "wrote nothing",
    "raises": "no such operator",
    "no metadata": "no automl-tl metadata",
    "other metadata": "metadata",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_export_leaves_nothing(export, tmp_path, fault):
    with pytest.raises(ExportError, match=FAULTS[fault]) as caught:
        export(fault=fault)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path / "out") == []


def test_a_faulty_export_leaves_the_old_file_alone(export, tmp_path):
    report = export()
    old = report.path.read_bytes(), report.card.read_bytes()
    with pytest.raises(ExportError):
        export(fault="one per cent")
    assert (report.path.read_bytes(), report.card.read_bytes()) == old
    export(study="another")
    assert identify(report.path).facts.study == "another"
    assert "another" in report.card.read_text(encoding="utf-8")
    assert everything(tmp_path / "out") == ["model.onnx", "model.onnx.md"]


def test_destinations_that_cannot_be(export, tmp_path, pixels):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.onnx.md").write_text("my own notes")
    for name, pattern in {
        "folder": r"is a folder; use .*model\.onnx",
        "model.safetensors": "says format safetensors",
        "model.md": "model card",
        "notes.onnx": "something else",
    }.items():
        with pytest.raises(UsageError, match=pattern):
            export(name)
    with pytest.raises(ExportError, match="choose another place"):
        export("file/model.onnx")
    with pytest.raises(UsageError, match=r"the model can .*onnx, litert, savedmodel, saf.*'tfl'"):
        export(format="tfl")
    assert (tmp_path / "notes.onnx.md").read_text() == "my own notes"


@pytest.mark.parametrize("folder", [".", "new/folder"])
def test_a_name_that_leaves_no_room_for_the_cards_is_refused_at_once(export, tmp_path, folder):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    for length in (longest - 2, longest, longest + 9):
        with pytest.raises(UsageError, match=r"Expected a name .*\.onnx\.md is too long"):
            export(f"{folder}/{'x' * (length - 5)}.onnx", fault="raises")
    with pytest.raises(UsageError, match="too long"):
        export(f"{'x' * (longest + 1)}/m.onnx", fault="raises")
    assert not [name for name in everything(tmp_path) if name.startswith(("new", "x"))]
    assert export(f"{folder}/{'x' * (longest - 8)}.onnx").card.is_file()


def test_formats_of_one_name_have_cards_of_their_own(export, tmp_path):
    first = export("out/m.onnx")
    text = first.card.read_text(encoding="utf-8")
    second = export("out/m.safetensors", "safetensors")
    assert everything(tmp_path / "out") == [
        "m.onnx",
        "m.onnx.md",
        "m.safetensors",
        "m.safetensors.md",
    ]
    assert first.card.read_text(encoding="utf-8") == text
    assert "# m.safetensors" in second.card.read_text(encoding="utf-8")


def test_a_format_may_be_a_folder(export, tmp_path):
    report = export("out/m.savedmodel", "savedmodel")
    assert (report.runtime, report.agreement) == ("torch", 256)
    files = [path for path in report.path.rglob("*") if path.is_file()]
    assert report.bytes == sum(path.stat().st_size for path in files) > 1000
    assert identify(report.path).kind == "savedmodel"
    assert "one self-contained folder" in report.card.read_text(encoding="utf-8")
    export("out/m.savedmodel", "savedmodel", study="another")
    assert identify(report.path).facts.study == "another"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "m.savedmodel",
        "m.savedmodel.md",
    ]


def test_a_folder_is_replaced_only_by_a_proven_one_and_only_when_it_is_ours(export, tmp_path):
    report = export("out/m.savedmodel", "savedmodel")
    with pytest.raises(ExportError, match="another class"):
        export("out/m.savedmodel", "savedmodel", "classes swapped", study="another")
    assert identify(report.path).facts.study == "colours"
    photos = tmp_path / "photos.savedmodel"
    photos.mkdir()
    (photos / "1.jpg").write_text("dear to somebody")
    theirs = tmp_path / "theirs.savedmodel"
    write_folder(theirs, np.zeros(3), {})
    (tmp_path / "file.savedmodel").write_text("a file")
    for name in ("photos.savedmodel", "theirs.savedmodel"):
        with pytest.raises(UsageError, match=r"one that automl-tl wrote, but .* is another"):
            export(name, "savedmodel")
    with pytest.raises(UsageError, match="is a file"):
        export("file.savedmodel", "savedmodel")
    with pytest.raises(UsageError, match="is a folder"):
        export("photos.savedmodel/../theirs.savedmodel/assets.extra", "onnx")
    assert everything(photos) == ["1.jpg"]
    assert (theirs / "weights.npy").exists()


def test_an_old_folder_comes_back_when_the_new_one_cannot_be_moved(tmp_path):
    new = tmp_path / "new"
    old = new / "old"
    old.mkdir(parents=True)
    (old / "name").write_text("old")
    with pytest.raises(OSError):
        move_into_place(new, old, tmp_path / "replaced")  # a folder cannot be moved into itself
    assert (old / "name").read_text() == "old"


def test_without_validation_images_nothing_is_proved(trained, make_onnx, facts, tmp_path):
    backend = LinearBackend(make_onnx)
    nothing = np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)
    with pytest.raises(ExportError, match="validation images"):
        export_model(trained, "onnx", tmp_path / "a.onnx", backend, SUFFIXES, *nothing, facts=facts)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 0.03), ("bfloat16", 0.3)])
def test_a_model_that_is_not_what_its_trial_trained_is_refused(
    precision, allowed, trained, export, pixels, make_onnx, tmp_path
):
    logits = LinearBackend(make_onnx).load(trained).logits(pixels)
    for factor in (1 + 0.9 * allowed, 1.0):
        assert export(recorded=Recorded(7, logits[:256] / factor, precision)).images == 256
    for factor in (1 + 1.1 * allowed, -1.0):
        with pytest.raises(ExportError, match=r"model of trial 7 .* on 256 validation images"):
            export("b.onnx", recorded=Recorded(7, logits[:256] / factor, precision))
    assert not list(tmp_path.glob("b.onnx*"))


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000, 40_000])
def test_the_images_are_spread_over_all_of_them(count):
    positions = spread(count)
    assert len(positions) == min(count, 256)
    gaps = np.diff(positions, prepend=-1, append=count)
    assert gaps.min() >= 1 and gaps.max() <= count / 256 + 1


def test_ties_within_the_tolerance_are_counted():
    reference = np.array([[10, 9.999, 0], [1, 5, 0]], np.float32)
    other = np.array([[9.998, 9.9995, 0], [1, 5, 0]], np.float32)
    found = compare(reference, [other, other[:1]])
    assert (found["agreement"], found["ties"], found["images"]) == (1, 1, 2)
    assert found["difference"] == pytest.approx(0.002, rel=1e-2)


def test_another_class_beyond_a_tie_is_refused_even_within_the_tolerance():
    reference = np.array([[10, 9.985]], np.float32)
    other = np.array([[9.991, 9.994]], np.float32)
    with pytest.raises(ExportError, match="1 images get another class"):
        compare(reference, [other])


def test_a_single_difference_in_any_run_counts():
    reference = np.eye(3, dtype=np.float32) * 10
    wrong = reference[:1] + 0.02
    with pytest.raises(ExportError, match=r"up to 0\.02, where 0\.01"):
        compare(reference, [reference, wrong])
    compare(reference, [reference, reference[:1] + 0.009])
    with pytest.raises(ExportError, match="shape"):
        compare(reference, [reference[:, :2]])


def test_metadata_survives_as_json(export):
    report = export()
    stored = json.loads(identify(report.path).facts.metadata()["automl_tl"])
    assert stored["classes"] == ["blue", "green", "red"] and stored["resize"] == "squash"
