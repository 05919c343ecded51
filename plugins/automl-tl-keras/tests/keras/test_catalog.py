"""The catalog against Keras itself."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from automl_tl.errors import PluginError
from automl_tl.types import NetworkSpec
from automl_tl_keras.catalog import Application, applications
from automl_tl_keras.network import build

CATALOG = {backbone.name: backbone for backbone in applications()}


def test_every_model_of_keras_is_a_backbone() -> None:
    known = {name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)}
    assert known == {name for name in CATALOG if "-" not in name}


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("VGG16", "vgg16"),
        ("ResNet50V2", "resnet_v2"),
        ("DenseNet121", "densenet"),
        ("EfficientNetB0", "efficientnet"),
    ],
)
def test_preprocessing_is_keras(name: str, module: str) -> None:
    preprocess = CATALOG[name].preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    x = pixels[..., ::-1] if preprocess.channels == "bgr" else pixels
    seen = (x / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    np.testing.assert_allclose(seen, expected, atol=1e-4)


@pytest.mark.parametrize(("name", "layers"), [("MobileNetV2", 154), ("VGG16", 19)])
def test_layers_are_those_of_keras(name: str, layers: int) -> None:
    network = CATALOG[name].load(None)
    assert len(network.layers) == layers
    assert network.input_shape == (None, 224, 224, 3)


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("EfficientNetB1", 240, 8),
        ("MobileNetV2", 200, 7),
        ("MobileNetV2-0.35", 97, 4),
        ("NASNetMobile", 200, 7),
    ],
)
def test_a_network_is_that_of_keras_at_its_size(
    name: str, size: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a side within is odd, Keras pads otherwise than in a graph for any size."""
    backbone = CATALOG[name]
    assert isinstance(backbone.load, Application)
    ours = build(NetworkSpec(backbone.key, size, None, "random:0"), backbone)
    theirs = published(backbone.load, size, monkeypatch)
    theirs.set_weights(ours.model.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    seen = (pixels / 255 - np.array(backbone.preprocess.mean)) / np.array(backbone.preprocess.std)
    found, expected = (
        keras.ops.convert_to_numpy(x)
        for x in (ours.segment(0, len(ours.info.layers))(pixels), theirs(seen.astype(np.float32)))
    )
    assert found.shape == expected.shape and ours.info.cuts[-1].shape[:2] == (side, side)
    scale = np.abs(expected).max()
    assert scale > 0 and np.abs(found - expected).max() <= 1e-5 * scale


def published(load: Application, size: int, monkeypatch: pytest.MonkeyPatch) -> keras.Model:
    """Build what Keras builds for its published weights, with random ones."""
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: "")
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_, **__: None)
    keras.utils.clear_session()
    make = getattr(keras.applications, load.model)
    network: keras.Model = make(include_top=False, input_shape=(size, size, 3), **load.options)
    return network


def test_efficientnet_has_the_layer_that_keras_adds_for_published_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it the published weights would see images of another spread."""
    load = CATALOG["EfficientNetB0"].load
    assert isinstance(load, Application)
    theirs = published(load, 64, monkeypatch)
    keras.utils.clear_session()
    ours = load(None, image_size=64)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    ours.set_weights(theirs.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)


def test_the_classifier_gives_logits() -> None:
    backbone = CATALOG["MobileNet-0.25"]
    assert backbone.load_classifier is not None
    network = backbone.load_classifier(None)
    assert network.output_shape == (None, 1000)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 128, 128, 3)).astype(np.float32)
    logits = keras.ops.convert_to_numpy(network(images))
    assert not np.allclose(logits.sum(1), 1)
    count = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert backbone.parameters == count


def test_a_model_that_keras_does_not_know() -> None:
    with pytest.raises(PluginError, match=r"keras/ResNet51: Keras .* does not know this model"):
        Application("keras/ResNet51", "ResNet51", {}, 224)(None)
