"""Loading of weights files: every form, and a sentence for whatever does not fit."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from automl_tl.errors import WeightsError
from automl_tl_keras import weights
from automl_tl_keras.catalog import applications

CATALOG = {backbone.name: backbone for backbone in applications()}
SHARED = Path(os.environ.get("AUTOML_TL_SHARED") or Path(__file__).resolve().parents[5] / "shared")
KEY = "keras/small"


def small(width: int = 4, classifier: bool = False) -> keras.Model:
    """A network with everything that makes files differ: nesting, state, constants of state."""
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    x = layers.Normalization()(images)
    x = keras.Sequential([layers.Conv2D(width, 3, name="inner"), layers.ReLU()], name="stem")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.SeparableConv2D(width, 3)(x)
    x = layers.Add()([layers.Conv2D(width, 1)(x), layers.Conv2D(width, 1)(x)])
    if classifier:
        x = layers.Dense(5, name="predictions")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, x)


def filled(**options: Any) -> keras.Model:
    """The network with weights that no initialiser makes."""
    network = small(**options)
    rng = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(variable.dtype))
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return network


def same(variable: Any, expected: Any) -> None:
    values = (keras.ops.convert_to_numpy(v) for v in (variable, expected))
    np.testing.assert_array_equal(*values)


def legacy(network: keras.Model, path: Path) -> None:
    """Write weights as ``keras.applications`` publishes them."""
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


def tensors(network: keras.Model, prefix: str = "") -> dict[str, np.ndarray]:
    """Name weights as ``Network.tensors`` does."""
    return {
        f"{prefix}{v.path if v.path.startswith(f'{layer.name}/') else f'{layer.name}/{v.path}'}": (
            np.asarray(keras.ops.convert_to_numpy(v))
        )
        for layer in network.layers
        for v in layer.weights
    }


def save(network: keras.Model, path: Path, form: str) -> None:
    if form == "legacy":
        legacy(network, path)
    elif form == "model.h5":
        network.save(path.with_suffix(".h5"))
        path.with_suffix(".h5").rename(path)
    elif form in (".weights.h5", ".keras"):
        aside = path.with_name(f"aside{form}")
        (network.save_weights if form == ".weights.h5" else network.save)(aside)
        aside.rename(path)
    else:
        prefix = "backbone." if form == "backbone." else ""
        head = {"head.dense_0/kernel": np.zeros((4, 2), np.float32)} if prefix else {}
        save_file(tensors(network, prefix) | head, path)


FORMS = ["legacy", "model.h5", ".weights.h5", ".keras", "safetensors", "backbone."]


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_with_and_without_a_classifier(
    tmp_path: Path, form: str, classifier: bool
) -> None:
    keras.utils.clear_session()
    original = filled(classifier=classifier)
    path = tmp_path / "weights.bin"
    save(original, path, form)
    keras.utils.clear_session()
    loaded = small()
    weights.load_into(loaded, path, KEY)
    for variable, expected in zip(loaded.weights, original.weights, strict=False):
        same(variable, expected)
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    body = keras.Model(original.inputs, original.layers[len(loaded.layers) - 1].output)
    seen, expected = (keras.ops.convert_to_numpy(m(images)) for m in (loaded, body))
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_whole_keras_model_around_the_backbone_gives_its_weights(tmp_path: Path) -> None:
    original = filled()
    images = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(original(images))
    whole = keras.Model(images, keras.layers.Dense(3)(pooled))
    whole.compile("adam", "mse")
    whole.save(tmp_path / "whole.keras")
    loaded = small()
    weights.load_into(loaded, tmp_path / "whole.keras", KEY)
    for variable, expected in zip(loaded.weights, original.weights, strict=True):
        same(variable, expected)


def test_layers_are_found_by_name_where_the_order_in_the_file_differs(tmp_path: Path) -> None:
    keras.utils.clear_session()
    original = filled()
    legacy(original, tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        names = list(file.attrs["layer_names"])
        names[-3], names[-2] = names[-2], names[-3]
        file.attrs["layer_names"] = names
    keras.utils.clear_session()
    loaded = small()
    weights.load_into(loaded, tmp_path / "w.h5", KEY)
    for variable, expected in zip(loaded.weights, original.weights, strict=True):
        same(variable, expected)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_frozen_when_it_was_saved_does_not_matter(tmp_path: Path, form: str) -> None:
    def nested() -> keras.Model:
        keras.utils.clear_session()
        images, maps = keras.Input((8, 8, 3)), keras.Input((6, 6, 4))
        normal = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(maps))
        inner = keras.Model(maps, keras.layers.Conv2D(4, 1)(normal), name="inner")
        return keras.Model(images, inner(keras.layers.Conv2D(4, 3)(images)))

    original = nested()
    rng = np.random.default_rng(0)
    original.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in original.get_weights()])
    values = {v.path: keras.ops.convert_to_numpy(v) for v in original.weights}
    original.get_layer("inner").layers[1].trainable = False
    original.layers[1].trainable = False
    save(original, tmp_path / "weights.bin", form)
    loaded = nested()
    weights.load_into(loaded, tmp_path / "weights.bin", KEY)
    for variable in loaded.weights:
        same(variable, values[variable.path])


@pytest.mark.parametrize("form", FORMS)
def test_another_network_is_refused_and_nothing_is_changed(tmp_path: Path, form: str) -> None:
    keras.utils.clear_session()
    path = tmp_path / "weights.bin"
    save(filled(width=6), path, form)
    keras.utils.clear_session()
    network = small()
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in network.weights]
    with pytest.raises(WeightsError, match=rf"^{KEY}: expected .* another one: .*shapes") as error:
        weights.load_into(network, path, KEY)
    assert "\n" not in str(error.value)
    for variable, value in zip(network.weights, before, strict=True):
        same(variable, value)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_the_classifier_does_not_fill_a_network_with_one(
    tmp_path: Path, form: str
) -> None:
    keras.utils.clear_session()
    save(filled(), tmp_path / "w", form)
    keras.utils.clear_session()
    with pytest.raises(WeightsError, match=r"another one: it (ends after|has no)"):
        weights.load_into(small(classifier=True), tmp_path / "w", KEY)


def test_a_deeper_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    legacy(chain((4, 4, 4, 8)), path)
    with pytest.raises(WeightsError, match=r"another one: its layer block_2 .* where block_2 has"):
        weights.load_into(chain((4, 4, 8)), path, KEY)
    legacy(chain((4, 4, 4, 4)), path)
    with pytest.raises(WeightsError, match=r"another one: it has 1 more layer"):
        weights.load_into(chain((4, 4, 4)), path, KEY)


def chain(widths: tuple[int, ...]) -> keras.Model:
    keras.utils.clear_session()
    images = x = keras.Input((12, 12, 3))
    for number, width in enumerate(widths):
        x = keras.layers.Conv2D(width, 3, name=f"block_{number}")(x)
    return keras.Model(images, x)


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Not found</html>")


def half(path: Path) -> None:
    legacy(filled(), path)
    path.write_bytes(path.read_bytes()[:4000])


def text(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.array([b"text"])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    "write", [html, half, text, other_zip, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(
        b"\x10\0\0\0\0\0\0\0{not json")]
)  # fmt: skip
def test_files_that_are_no_weights_are_named(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "weights.h5"
    write(path)
    with pytest.raises(WeightsError, match="is not a weights file, or is damaged") as error:
        weights.load_into(small(), path, KEY)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**8 + 1))
    with pytest.raises(WeightsError, match="more than 200 times"):
        weights.load_into(small(), tmp_path / "w.keras", KEY)


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    keras.utils.clear_session()
    legacy(filled(), tmp_path / "real.h5")
    with h5py.File(tmp_path / "real.h5") as real, h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = real.attrs["layer_names"]
        for name in real:
            file[name] = h5py.ExternalLink(str(tmp_path / "real.h5"), f"/{name}")
    with pytest.raises(WeightsError, match="damaged"):
        weights.load_into(small(), tmp_path / "w.h5", KEY)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.h5 cannot be read \(No such file"):
        weights.load_into(small(), tmp_path / "absent.h5", KEY)
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.load_into(small(), tmp_path, KEY)


def test_published_weights_load_and_are_those_that_keras_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = SHARED / "weights" / "keras_home"
    if not home.is_dir():
        pytest.skip(f"no shared weights at {home}")
    monkeypatch.setenv("KERAS_HOME", str(home))
    backbone = CATALOG["MobileNet-0.25"]
    assert backbone.classifier is not None and backbone.load_classifier is not None
    for load, published, top in (
        (backbone.load, backbone.pretrained, False),
        (backbone.load_classifier, backbone.classifier, True),
    ):
        assert published is not None
        expected = keras.applications.MobileNet(
            weights=published.path(), include_top=top, alpha=0.25, input_shape=(128, 128, 3)
        )
        loaded = load(published.path())
        for variable, other in zip(loaded.weights, expected.weights, strict=True):
            same(variable, other)


def test_the_file_of_a_trial_is_a_weights_file(tmp_path: Path) -> None:
    from automl_tl.types import NetworkSpec
    from automl_tl_keras.network import build

    backbone = CATALOG["MobileNet-0.25"]
    trained = build(NetworkSpec(backbone.key, 32, None, "random:0", 0), backbone)
    state = {f"backbone.{n}": keras.ops.convert_to_numpy(v) for n, v in trained.tensors().items()}
    path = tmp_path / "trial.safetensors"
    save_file(state | {"head.dense_0/kernel": np.zeros((256, 3), np.float32)}, path)
    loaded = build(NetworkSpec(backbone.key, 32, path, "trial", 1), backbone)
    for name, variable in loaded.tensors().items():
        same(variable, state[f"backbone.{name}"])
