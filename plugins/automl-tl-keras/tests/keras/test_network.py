from __future__ import annotations

import math
import random
import zipfile
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from automl_tl.errors import PluginError, UsageError
from automl_tl.specs import Backbone, Preprocess
from automl_tl.types import NetworkSpec
from automl_tl_keras.network import Network, build

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 16


class Small:
    """A small network with all that behaves differently in training."""

    def __call__(self, path: Path | None) -> keras.Model:
        images = keras.Input((None, None, 3))
        value = layers.Conv2D(4, 3, strides=2)(images)
        value = layers.BatchNormalization()(value)
        value = layers.Dropout(0.5)(value)
        value = layers.Conv2D(5, 3)(value)
        value = layers.BatchNormalization()(value)
        inner = [layers.Dropout(0.5), layers.Conv2D(6, 1), layers.BatchNormalization()]
        value = keras.Sequential(inner, name="inner")(value)
        return keras.Model(images, layers.ReLU()(value))


NAMES = ["conv2d", "batch_normalization", "dropout", "conv2d_1", "batch_normalization_1", "inner"]


def network(seed: int = 0, preprocess: Preprocess | None = None, size: int = SIZE) -> Network:
    backbone = Backbone(
        "small",
        "keras",
        Small(),
        input_size=SIZE,
        parameters=1,
        min_size=8,
        preprocess=preprocess or Preprocess(),
    )
    return build(NetworkSpec("keras/small", size, None, f"random:{seed}", seed), backbone)


def application(name: str, size: int) -> Network:
    def load(path: Path | None) -> Any:
        make = getattr(keras.applications, name)
        return make(include_top=False, weights=None, input_shape=(size, size, 3))

    backbone = Backbone(name, "keras", load, input_size=size, parameters=1)
    return build(NetworkSpec(f"keras/{name}", size, None, "random:0"), backbone)


def pixels(count: int = 4, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def values(built: Network) -> dict[str, NDArray[np.float32]]:
    return {name: variable.numpy().copy() for name, variable in built.tensors().items()}


def changed(built: Network, before: dict[str, NDArray[np.float32]]) -> set[str]:
    after = values(built)
    return {name for name, value in before.items() if not np.array_equal(value, after[name])}


def train_a_step(built: Network, fine_tune_at: int) -> None:
    """A large step of gradient descent on all that is trainable."""
    segment = built.segment(0, len(built.info.layers))
    trainable = [variable.value for variable in built.trainable(fine_tune_at).values()]
    with tf.GradientTape() as tape:
        output = segment(pixels(), training=True)
        # A plain sum has no gradient below a normalisation; a random target has.
        target = np.random.default_rng(2).normal(size=output.shape)
        loss = tf.reduce_mean((output - target) ** 2)
    for variable, gradient in zip(trainable, tape.gradient(loss, trainable), strict=True):
        variable.assign_sub(gradient / (tf.norm(gradient) + 1e-12))


@pytest.mark.parametrize("fine_tune_at", [0, 4, 6])
def test_freezing_holds_weights_below_and_all_statistics(fine_tune_at: int) -> None:
    built = network()
    before = values(built)
    built.freeze(fine_tune_at)
    train_a_step(built, fine_tune_at)
    learnt = {"kernel", "bias", "gamma", "beta"}
    expected = {
        name
        for name in before
        if name.rpartition("/")[2] in learnt
        and NAMES.index(name.partition("/")[0]) + 1 >= fine_tune_at
    }
    assert changed(built, before) == expected == set(built.trainable(fine_tune_at))


def test_batch_normalisation_uses_its_statistics_in_training_too() -> None:
    built = network()
    for name, variable in built.tensors().items():
        if "moving" in name:
            variable.assign(np.random.default_rng(3).uniform(0.5, 2, variable.shape))
    built.freeze(0)
    before = values(built)
    images = pixels()
    norm = built.model.get_layer("batch_normalization_1")
    x = np.random.default_rng(4).normal(size=(2, 3, 3, 5)).astype(np.float32)
    scaled = (x - norm.moving_mean.numpy()) / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    assert norm.trainable
    assert np.abs(norm(x, training=True).numpy() - scaled).max() < 1e-5
    segment = built.segment(0, len(built.info.layers))
    segment(images, training=True)
    keras.Sequential([segment])(images, training=True)
    assert changed(built, before) == set()


def test_statistics_stay_when_keras_itself_trains() -> None:
    built = network()
    built.freeze(0)
    before = values(built)
    model = keras.Sequential([built.segment(0, 8), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(pixels(), np.ones((4, 2)), epochs=1, verbose=0)
    assert changed(built, before) == set(built.trainable(0))


def test_dropout_works_above_and_rests_below() -> None:
    built = network()
    whole = built.segment(0, len(built.info.layers))
    images = pixels()

    def repeats(training: bool) -> bool:
        one, two = (whole(images, training=training).numpy() for _ in range(2))
        return np.array_equal(one, two)

    for fine_tune_at, same in ((0, False), (3, False), (6, False), (7, True), (8, True)):
        built.freeze(fine_tune_at)
        assert repeats(training=True) is same, fine_tune_at
        assert repeats(training=False)


def test_reset_is_exact() -> None:
    built = network()
    before = values(built)
    built.reset()
    assert changed(built, before) == set()
    for fine_tune_at in (6, 2, 4):
        built.freeze(fine_tune_at)
        train_a_step(built, fine_tune_at)
    assert len(changed(built, before)) == len(built.trainable(2))
    built.reset()
    assert changed(built, before) == set()


def test_segments_share_weights_and_are_kept() -> None:
    built = network()
    middle = built.segment(0, 4)
    assert built.segment(0, 4) is middle
    before = middle(pixels()).numpy()
    built.tensors()["conv2d/bias"].assign(np.ones(4))
    assert np.abs(middle(pixels()).numpy() - before).max() > 0.1


def test_any_layer_can_be_tapped() -> None:
    built = network()
    images = pixels()
    for layer in (*NAMES, "re_lu"):
        index = [one.name for one in built.info.layers].index(layer)
        expected = built.segment(0, index + 1)(images).numpy()
        assert np.array_equal(built.tap(0, layer)(images).numpy(), expected)
    assert np.array_equal(built.tap(0, "input_layer")(images), built.segment(0, 1)(images))
    stored = built.segment(0, 4)(images)
    expected = built.segment(4, 6)(stored).numpy()
    assert np.array_equal(built.tap(4, "batch_normalization_1")(stored).numpy(), expected)
    for start, layer in ((0, "nothing"), (4, "dropout"), (99, "re_lu")):
        with pytest.raises(PluginError, match="above cut"):
            built.tap(start, layer)


def test_segments_need_cuts() -> None:
    built = application("MobileNetV2", 32)
    cuts = {cut.index for cut in built.info.cuts}
    inside = next(index for index in range(154) if index not in cuts)
    for start, stop in ((0, inside), (inside, 154), (154, 0), (0, 155)):
        with pytest.raises(PluginError, match="expected two cut points"):
            built.segment(start, stop)


def test_the_articles_figures() -> None:
    mobilenet = application("MobileNetV2", 32)
    assert len(mobilenet.info.layers) == 154
    assert len(mobilenet.trainable(100)) == 56 - 2
    vgg = application("VGG16", 32)
    features, classes = 8 * 8 * 512, 5  # VGG16's output at 256 pixels a side
    head = features * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * classes + classes
    total = head + sum(layer.parameters for layer in vgg.info.layers)
    at = [layer.name for layer in vgg.info.layers].index("block4_pool")
    tuned = head + sum(math.prod(v.shape) for v in vgg.trainable(at).values())
    assert (head, tuned, total - tuned, total) == (
        151_023_621,
        158_103_045,
        7_635_264,
        165_738_309,
    )


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        Preprocess(mean=(0.4, 0.45, 0.5), std=(1 / 255,) * 3, channels="bgr"),
        Preprocess(mean=(0, 0, 0), std=(1 / 255,) * 3),
    ],
)
def test_normalisation(preprocess: Preprocess) -> None:
    built = network(preprocess=preprocess)
    images = pixels()
    expected = images[..., :: -1 if preprocess.channels == "bgr" else 1] / 255.0
    expected = (expected - preprocess.mean) / preprocess.std
    for given in (images, images.astype(np.float32)):
        actual = built.segment(0, 1)(given).numpy()
        assert actual.dtype == np.float32
        assert np.abs(actual - expected).max() <= 1e-6 * np.abs(expected).max()
    if preprocess.std == (1 / 255,) * 3 and not any(preprocess.mean):
        assert np.array_equal(actual, images)


def test_a_saved_model_names_only_keras_own_classes(tmp_path: Path) -> None:
    built = network(preprocess=Preprocess(channels="bgr"))
    built.freeze(3)
    whole = built.segment(0, len(built.info.layers))
    whole.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "automl" not in config and "ruled" not in config and '"BatchNormalization"' in config
    opened = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert np.array_equal(opened(pixels()).numpy(), whole(pixels()).numpy())


def test_names_are_those_of_a_fresh_process() -> None:
    names = list(network().tensors())
    assert names[:3] == ["conv2d/kernel", "conv2d/bias", "batch_normalization/gamma"]
    assert "inner/conv2d_2/kernel" in names and len(set(names)) == len(names)
    layers.Conv2D(1, 1)
    assert list(network().tensors()) == names


def test_random_weights_follow_the_seed_and_disturb_nobody() -> None:
    random.seed(5)
    np.random.seed(5)
    one, two, other = network(0), network(0), network(1)
    drawn = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    assert drawn == (random.random(), np.random.random())
    assert changed(two, values(one)) == set()
    assert "conv2d/kernel" in changed(other, values(one))


def test_sizes_are_checked() -> None:
    with pytest.raises(UsageError, match="at least 8 pixels a side, got 7"):
        network(size=7)
    assert network(size=20).info.cuts[-1].shape == (7, 7, 6)


def test_a_loader_that_fails_is_named() -> None:
    def load(path: Path | None) -> Any:
        raise KeyError("no such block")

    backbone = Backbone("bad", "keras", load, input_size=8, parameters=1, min_size=8)
    with pytest.raises(PluginError, match="keras/bad: its loader fails with KeyError"):
        build(NetworkSpec("keras/bad", 8, None, "random:0"), backbone)
