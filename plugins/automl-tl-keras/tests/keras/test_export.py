from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from automl_tl.errors import ExportError
from automl_tl.identify import identify
from automl_tl_keras import export, reopen
from automl_tl_keras.export_onnx import OPSET
from automl_tl_keras.plugin import FORMATS
from automl_tl_keras.whole import Whole


@pytest.fixture(scope="module")
def exported(workshop, tmp_path_factory):
    """A fine-tuned model in every format, its pixels and its logits."""
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    trainer, _, _ = shop.train(job)
    folder = tmp_path_factory.mktemp("exported")
    trainer.save(folder / "trial", shop.facts(job).metadata())
    model = shop.backend.load(folder / "trial")
    for format, suffix in FORMATS.items():
        model.export(format, folder / f"m{suffix}", shop.facts(job).metadata())
    return SimpleNamespace(
        shop=shop,
        folder=folder,
        model=model,
        metadata=shop.facts(job).metadata(),
        pixels=shop.pixels,
        logits=model.logits(shop.pixels),
    )


def assert_agrees(logits, exported):
    assert logits.dtype == np.float32
    difference = np.abs(logits - exported.logits[: len(logits)]).max()
    assert difference <= 1e-4 * np.abs(exported.logits).max()


def test_nothing_else_is_written_and_facts_are_in_every_file(exported):
    names = {f"m{suffix}" for suffix in FORMATS.values()}
    assert {path.name for path in exported.folder.iterdir()} == names | {"trial"}
    for name in names:
        assert identify(exported.folder / name).facts.metadata() == exported.metadata


def test_onnx(exported):
    path = exported.folder / "m.onnx"
    model = onnx.load(path, load_external_data=False)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [image], [output] = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("pixels", "tensor(uint8)", [24, 24, 3])
    assert (output.name, output.type, output.shape[1:]) == ("logits", "tensor(float)", [3])
    for count in (1, 3, 36):
        [logits] = session.run(["logits"], {"pixels": exported.pixels[:count]})
        assert_agrees(logits, exported)


@pytest.fixture(scope="module")
def awkward():
    """A model of what converters stumble over, its pixels and its logits."""
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    x = keras.layers.Normalization(mean=[100.0, 120, 90], variance=[900.0, 400, 2500])(pixels)
    x = keras.layers.Conv2D(6, 3, groups=3, activation="gelu")(x)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    program = keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))
    images = np.random.default_rng(0).integers(256, size=(5, 8, 8, 3), dtype=np.uint8)
    return SimpleNamespace(
        model=Whole(program, {}, image_size=8, classes=3),
        pixels=images,
        logits=program.predict(images, verbose=0),
    )


def test_onnx_of_normalization_grouped_convolution_and_gelu(awkward, tmp_path):
    export.write(awkward.model, "onnx", tmp_path / "m.onnx", {"automl_tl": "{}"})
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [place.name for place in session.get_inputs()] == ["pixels"]
    assert_agrees(session.run(None, {"pixels": awkward.pixels})[0], awkward)
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert not kinds & {"Sqrt", "Reciprocal"}, "what depends on weights alone is computed before"


def test_litert_of_normalization_grouped_convolution_and_gelu(awkward, tmp_path):
    export.write(awkward.model, "litert", tmp_path / "m.tflite", {"automl_tl": "{}"})
    classify = Interpreter(str(tmp_path / "m.tflite")).get_signature_runner()
    assert_agrees(classify(pixels=awkward.pixels)["logits"], awkward)


def test_a_keras_file_opens_in_plain_keras(exported):
    path = exported.folder / "m.keras"
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    assert model.input.name == "pixels" and model.input.dtype == "uint8"
    assert model.output_names == ["logits"] and model.layers[-1].name == "logits"
    assert_agrees(model.predict(exported.pixels, verbose=0), exported)
    config = json.loads(zipfile.ZipFile(path).read("config.json"))
    assert "registered_name" in json.dumps(config) and "automl_tl" not in json.dumps(config)


def test_a_savedmodel_has_a_signature(exported):
    path = exported.folder / "m.savedmodel"
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    for count in (1, 36):
        logits = signature(pixels=tf.constant(exported.pixels[:count]))["logits"]
        assert_agrees(logits.numpy(), exported)
    stored = (path / "assets.extra" / "automl_tl.json").read_text(encoding="utf-8")
    assert json.loads(stored)["classes"] == ["class 0", "class 1", "class 2"]


def test_litert_takes_any_batch(exported):
    path = exported.folder / "m.tflite"
    classify = Interpreter(str(path)).get_signature_runner()
    for count in (1, 3, 36):
        assert_agrees(classify(pixels=exported.pixels[:count])["logits"], exported)
    assert zipfile.ZipFile(path).namelist() == ["automl_tl.json"]


def test_where_litert_is_not_installed_tensorflow_runs_it(exported):
    model = exported.shop.backend.load(exported.folder / "m.tflite")
    assert_agrees(model.logits(exported.pixels, 5), exported)


def test_a_temperature_divides_the_logits_of_every_format(exported, tmp_path):
    model = exported.shop.backend.load(exported.folder / "trial")
    model.calibrate(2.5)
    divided = SimpleNamespace(logits=exported.logits / np.float32(2.5))
    assert_agrees(model.logits(exported.pixels), divided)
    for format, suffix in FORMATS.items():
        path = tmp_path / f"m{suffix}"
        model.export(format, path, exported.metadata)
        if format == "onnx":
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            assert_agrees(session.run(["logits"], {"pixels": exported.pixels})[0], divided)
        else:
            opened = exported.shop.backend.load(path)
            assert_agrees(opened.logits(exported.pixels), divided)
    with pytest.raises(ExportError, match="exported already"):
        exported.shop.backend.load(tmp_path / "m.tflite").calibrate(2.0)


def test_an_unknown_format(exported, tmp_path):
    with pytest.raises(ExportError, match=r"onnx, keras, savedmodel, litert, saf.*'torch'"):
        exported.model.export("torch", tmp_path / "m", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", export.TENSORFLOW_ONLY)
def test_what_other_frameworks_cannot_write_is_told(exported, tmp_path, monkeypatch, format):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(ExportError, match=f"onnx, keras or safetensors.*'{format}'"):
        exported.model.export(format, tmp_path / "m", exported.metadata)
    with pytest.raises(ExportError, match=r"m\.savedmodel.*KERAS_BACKEND=tensorflow"):
        reopen.fill_from_savedmodel(exported.model._source, exported.folder / "m.savedmodel")
    assert not list(tmp_path.iterdir())


def test_a_failing_exporter_leaves_nothing(exported, tmp_path, capfd):
    with pytest.raises(ExportError, match=r"^the keras exporter cannot express .*choose another"):
        exported.model.export("keras", tmp_path / "m.h6", exported.metadata)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
