from __future__ import annotations

import io
import os
import shutil
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from automl_tl.errors import ExportError, PluginError
from automl_tl.modelfile import ModelFacts
from automl_tl.types import Head
from automl_tl_keras import reopen
from automl_tl_keras.model import load_model, save_model

PROGRAMS = {"keras": "m.keras", "savedmodel": "m.savedmodel"}


@pytest.fixture(scope="module")
def trained(workshop, tmp_path_factory):
    """A trained model's file, the validation logits it must give, its exports as programs."""
    shop = workshop()
    cut = shop.cut(0.6)
    train, validation = shop.train_and_validation(shop.end)
    head = Head(shop.classes, units=(6, 5), pooling="flatten", scale=0.6)
    job = shop.tuning(cut, cut, head=head, head_train=train, head_validation=validation)
    trainer, _, seen = shop.train(job)
    folder = tmp_path_factory.mktemp("model")
    path = folder / "model.safetensors"
    metadata = shop.facts(job).metadata()
    trainer.save(path, metadata)
    source = shop.backend.load(path)
    for format, name in PROGRAMS.items():
        source.export(format, folder / name, metadata)
    return SimpleNamespace(
        shop=shop,
        path=path,
        folder=folder,
        metadata=metadata,
        source=source,
        logits=seen.reports[-1].validation_logits,
    )


def opened(trained, path):
    """Open a file as another process would, which has exported nothing."""
    return load_model(path, lambda key: trained.shop.backbone)


def assert_gives(found, trained):
    shop = trained.shop
    logits = found.logits(shop.pixels[shop.validation_rows])
    np.testing.assert_allclose(logits, trained.logits, rtol=1e-4, atol=1e-5)


def test_a_saved_model_is_opened_without_the_weights_it_started_from(trained):
    assert_gives(trained.source, trained)
    with safe_open(trained.path, "np") as file:
        network = trained.shop.backend._build(trained.shop.spec).tensors()
        head = {f"head.dense_{i}/{kind}" for i in range(3) for kind in ("kernel", "bias")}
        assert set(file.keys()) == {f"backbone.{name}" for name in network} | head
        assert list(file.metadata()) == ["automl_tl"]
    assert not list(trained.folder.glob(".*"))


def test_batches_do_not_matter(trained):
    pixels = trained.shop.pixels
    whole = trained.source.logits(pixels)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(trained.source.logits(pixels, batch_size=5), whole, atol=1e-5)
    assert trained.source.logits(pixels[:0]).shape == (0, trained.shop.classes)


def test_pixels_of_another_size_or_type(trained):
    with pytest.raises(ExportError, match=r"expected uint8 pixels of shape \(N, 24, 24, 3\)"):
        trained.source.logits(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ExportError, match="got float32"):
        trained.source.logits(np.zeros((1, 24, 24, 3), np.float32))


@pytest.mark.parametrize("format", PROGRAMS)
def test_a_program_runs_as_it_is_only_where_it_was_written(trained, monkeypatch, format, tmp_path):
    path = trained.folder / PROGRAMS[format]
    program = trained.shop.backend.load(path)
    assert_gives(program, trained)
    with pytest.raises(ExportError, match="exported already"):
        program.export("onnx", tmp_path / "again.onnx", {})

    def forbidden(*_):
        raise AssertionError

    monkeypatch.setattr(reopen, "open_written", forbidden)
    with pytest.raises(AssertionError):
        trained.shop.backend.load(path)
    stranger = opened(trained, path)
    assert_gives(stranger, trained)
    stranger.export("safetensors", tmp_path / "m.safetensors", trained.metadata)
    again, first = load_file(tmp_path / "m.safetensors"), load_file(trained.path)
    assert again.keys() == first.keys()
    assert all(np.array_equal(again[name], first[name]) for name in first)


def test_a_savedmodel_that_touches_files_is_not_run(trained, tmp_path):
    ours = trained.folder / "m.savedmodel"
    theirs, owned, secret = (tmp_path / name for name in ("m", "owned", "secret"))
    secret.write_text("a secret")
    original = tf.saved_model.load(str(ours))
    module = tf.Module()
    module.tensors = original.tensors

    @tf.function(input_signature=[tf.TensorSpec((None, 24, 24, 3), tf.uint8, name="pixels")])
    def classify(pixels):
        tf.io.write_file(str(owned), tf.io.read_file(str(secret)))
        return {"logits": tf.zeros((tf.shape(pixels)[0], 3))}

    module.classify = classify
    tf.saved_model.save(module, str(theirs), signatures=classify.get_concrete_function())
    shutil.copytree(ours / "assets.extra", theirs / "assets.extra")
    tf.saved_model.load(str(theirs)).signatures["serving_default"](
        pixels=tf.zeros((1, 24, 24, 3), tf.uint8)
    )
    assert owned.read_text() == "a secret", "it does what it should not"
    owned.unlink()
    assert_gives(opened(trained, theirs), trained)
    assert not owned.exists()


def test_of_a_keras_file_only_the_weights_are_read(trained, tmp_path):
    theirs = rezip(trained.folder / "m.keras", tmp_path, {"config.json": b"{not even json"})
    assert_gives(opened(trained, theirs), trained)


def rezip(path, folder, changes):
    """Copy an archive, with some of its files replaced, or left out for None."""
    copy = folder / "copy.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            data = changes.get(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return copy


def linked_weights(path):
    """Weights of which one lies in another file."""
    with zipfile.ZipFile(path) as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if name.endswith("/0") else None)
        del file[names[0]]
        file[names[0]] = h5py.ExternalLink("/etc/other.h5", "/x")
    return data.getvalue()


def test_damaged_keras_files_are_refused_in_a_sentence(trained, tmp_path):
    path = trained.folder / "m.keras"
    for data in (None, b"no HDF5 at all", linked_weights(path)):
        copy = rezip(path, tmp_path, {"model.weights.h5": data})
        with pytest.raises(
            ExportError, match=r"copy\.keras: .* damaged or of another kind"
        ) as told:
            opened(trained, copy)
        assert "\n" not in str(told.value)
    cut = tmp_path / "cut.keras"
    cut.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ExportError, match="damaged"):
        opened(trained, cut)


def test_damaged_savedmodels_are_refused_in_a_sentence(trained, tmp_path):
    copy = tmp_path / "m.savedmodel"
    shutil.copytree(trained.folder / "m.savedmodel", copy)
    [data] = (copy / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"m\.savedmodel: .* damaged") as told:
        opened(trained, copy)
    assert "\n" not in str(told.value)
    shutil.rmtree(copy / "variables")
    with pytest.raises(ExportError, match=r"m\.savedmodel: .* damaged"):
        opened(trained, copy)


def test_tensors_of_another_network_are_refused(trained, tmp_path):
    tensors = load_file(trained.path)
    name = "head.dense_1/kernel"
    for changes, pattern in (
        ({name: None}, f"{name} is missing"),
        ({"backbone.more": np.zeros(2, np.float32)}, "backbone.more is none of its tensors"),
        ({name: np.zeros((6, 4), np.float32)}, r"shape \(6, 4\), not \(6, 5\)"),
    ):
        changed = {k: v for k, v in (tensors | changes).items() if v is not None}
        save_file(changed, tmp_path / "m.safetensors", trained.metadata)
        with pytest.raises(ExportError, match=pattern):
            opened(trained, tmp_path / "m.safetensors")


def test_a_head_larger_than_its_file_is_not_built(trained, tmp_path):
    path = tmp_path / "m.safetensors"
    facts = ModelFacts.parse(trained.metadata, "m")
    width = trained.path.stat().st_size // 20
    wide = replace(facts, head=replace(facts.head, units=(width,)))
    save_file(load_file(trained.path), path, wide.metadata())
    with pytest.raises(
        ExportError, match=r"its head would have [\d,]+ parameters, in [\d,]+ bytes"
    ):
        opened(trained, path)


def test_an_unknown_backbone_is_told(trained):
    def unknown(key):
        raise PluginError(f"no backbone {key}")

    with pytest.raises(ExportError, match="keras/tiny cannot be rebuilt"):
        load_model(trained.path, unknown)


def test_a_scalar_keeps_its_shape(tmp_path):
    save_model(tmp_path / "m.safetensors", {"count": np.float32(3)}, {})
    assert load_file(tmp_path / "m.safetensors")["count"].shape == ()


def test_files_are_readable_by_others_and_folders_must_exist(tmp_path):
    save_model(tmp_path / "m.safetensors", {}, {})
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(ExportError, match="expected an existing folder"):
        save_model(tmp_path / "gone" / "m.safetensors", {}, {})
