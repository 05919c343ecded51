from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
from keras import layers

from automl_tl.errors import PluginError
from automl_tl.specs import Backbone, Preprocess
from automl_tl.types import NetworkSpec
from automl_tl_keras.catalog import applications
from automl_tl_keras.network import Network, build

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def application(name: str, size: int) -> Network:
    """A model of ``keras.applications`` with random weights."""
    backbone = next(one for one in applications() if one.name == name)
    built = build(NetworkSpec(backbone.key, size, None, "random:0"), backbone)
    # Weights that fit the statistics of BatchNorm; those that Keras draws shrink values to nothing.
    rng = np.random.default_rng(0)
    for key, variable in built.tensors().items():
        if key.endswith("/kernel") and len(variable.shape) == 4:
            fan_in = math.prod(variable.shape[:3])
            variable.assign(rng.normal(0, (2 / fan_in) ** 0.5, variable.shape))
    return built


def custom(
    make: Callable[[], object], size: int = 8, preprocess: Preprocess | None = None
) -> Network:
    backbone = Backbone(
        "custom",
        "keras",
        lambda path: make(),
        input_size=size,
        parameters=1,
        min_size=1,
        preprocess=preprocess or Preprocess(),
    )
    return build(NetworkSpec("keras/custom", size, None, "random:0"), backbone)


def pixels(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def check_cuts(built: Network, indices: list[int]) -> None:
    """Compare the network in one piece with two pieces at each cut."""
    info = built.info
    count = len(info.layers)
    images = pixels(2, built.spec.image_size)
    whole = built.segment(0, count)(images).numpy()
    shapes = {cut.index: cut.shape for cut in info.cuts}
    assert np.isfinite(whole).all() and np.abs(whole).max() > 0
    for index in indices:
        below = built.segment(0, index)(images)
        assert tuple(below.shape[1:]) == shapes[index]
        above = built.segment(index, count)(below).numpy()
        assert np.abs(above - whole).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("MobileNetV2", 48, 154),
        ("VGG16", 32, 19),
        ("InceptionV3", 75, 311),
        ("MobileNetV3Small", 32, 157),
        ("EfficientNetV2B0", 32, 270),
        ("ConvNeXtTiny", 32, 133),
        ("DenseNet121", 32, 427),
    ],
)
def test_two_pieces_are_the_whole(name: str, size: int, count: int) -> None:
    built = application(name, size)
    info = built.info
    assert len(info.layers) == count
    cuts = [cut.index for cut in info.cuts]
    assert cuts == sorted(set(cuts)) and cuts[0] == 0 and cuts[-1] == count
    flops = [cut.flops for cut in info.cuts]
    assert flops == sorted(flops) and flops[0] == 0
    assert info.cuts[0].shape == (size, size, 3)
    assert info.features == built.model.output_shape[-1] == info.cuts[-1].shape[-1]
    check_cuts(built, [cuts[len(cuts) // 3], cuts[2 * len(cuts) // 3]])


def test_only_where_one_tensor_flows_is_a_cut() -> None:
    def make() -> keras.Model:
        images = keras.Input((8, 8, 3))
        first = layers.Conv2D(4, 3, padding="same", name="first")(images)
        left = layers.Conv2D(4, 3, padding="same", name="left")(first)
        both = layers.Add(name="both")([first, left])
        scaled = both * 2.0  # an operation that is no layer
        last = layers.ReLU(name="last")(scaled + both)
        return keras.Model(images, last)

    built = custom(make)
    names = [layer.name for layer in built.info.layers]
    assert names[1:] == ["first", "left", "both", "last"]
    assert [cut.index for cut in built.info.cuts] == [0, 1, 2, 4, 5]
    check_cuts(built, [1, 2, 4, 5])


def test_what_an_operation_above_a_cut_needs_flows_too() -> None:
    def make() -> keras.Model:
        images = keras.Input((8, 8, 3))
        first = layers.Conv2D(4, 3, name="first")(images)
        squashed = layers.Activation("sigmoid", name="squash")(first)
        return keras.Model(images, layers.ReLU(name="last")(squashed + keras.ops.mean(images)))

    # The mean of the pixels is needed at the end, so that nothing else can flow alone before.
    built = custom(make)
    assert [cut.index for cut in built.info.cuts] == [0, 3, 4]
    check_cuts(built, [3, 4])


def test_a_layer_used_twice_is_listed_once_and_runs_twice() -> None:
    def make() -> keras.Model:
        images = keras.Input((8, 8, 3))
        mix = layers.Conv2D(3, 1, use_bias=False, name="mix")
        squashed = layers.Activation("sigmoid", name="squash")(mix(images))
        return keras.Model(images, layers.ReLU(name="last")(mix(squashed)))

    built = custom(make)
    assert [layer.parameters for layer in built.info.layers] == [0, 9, 0, 0]
    assert [cut.index for cut in built.info.cuts] == [0, 1, 2, 3, 4]
    check_cuts(built, [1, 2, 3, 4])
    built.freeze(2)
    assert built.trainable(2) == {} and not built.model.trainable_variables


def test_nested_models_are_layers_and_count_what_is_inside() -> None:
    def make() -> keras.Model:
        inner = keras.Sequential(
            [layers.Conv2D(4, 3, strides=2, padding="same"), layers.Conv2D(5, 3, padding="same")],
            name="inner",
        )
        images = keras.Input((None, None, 3))
        return keras.Model(images, layers.BatchNormalization(name="norm")(inner(images)))

    built = custom(make)
    assert [layer.kind for layer in built.info.layers][1:] == ["Sequential", "BatchNormalization"]
    assert [layer.parameters for layer in built.info.layers] == [
        0,
        3 * 9 * 4 + 4 + 4 * 9 * 5 + 5,
        10,
    ]
    assert built.info.cuts[2].shape == (4, 4, 5)
    assert built.info.cuts[2].flops == 16 * (3 * 9 * 4 + 4 * 9 * 5)
    check_cuts(built, [1, 2, 3])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: layers.Conv2D(6, 3, strides=2, padding="same"), 4 * 4 * 6 * 9 * 4),
        (lambda: layers.Conv2D(6, 3, groups=2, padding="valid"), 6 * 6 * 6 * 9 * 2),
        (lambda: layers.DepthwiseConv2D(3, padding="same"), 8 * 8 * 4 * 9),
        (lambda: layers.SeparableConv2D(6, 3, padding="same"), 8 * 8 * 4 * (9 + 6)),
        (lambda: layers.Dense(5), 8 * 8 * 4 * 5),
        (layers.BatchNormalization, 8 * 8 * 4),
        (layers.Flatten, 8 * 8 * 4),
    ],
)
def test_multiply_adds(layer: Callable[[], keras.Layer], expected: int) -> None:
    def make() -> keras.Model:
        images = keras.Input((8, 8, 3))
        widened = layers.Conv2D(4, 1, name="widen")(images)
        return keras.Model(images, layer()(widened))

    cuts = custom(make).info.cuts
    assert cuts[2].flops == 8 * 8 * 3 * 4
    assert cuts[3].flops - cuts[2].flops == expected


def test_known_multiply_adds_and_parameters() -> None:
    mobilenet = application("MobileNetV2", 224).info
    # 300 million in the paper's table 4, with the classifier and without the small layers.
    assert 300e6 < mobilenet.cuts[-1].flops < 315e6
    assert sum(layer.parameters for layer in mobilenet.layers) == 2_223_872
    assert mobilenet.cuts[-1].shape == (7, 7, 1280)


def fixed() -> keras.Model:
    images = keras.Input((16, 16, 3))
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(images)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: "no model", "functional keras.Model, got str"),
        (lambda: keras.Sequential([layers.Dense(2)]), "functional keras.Model, got Sequential"),
        (fixed, "does not run on images of 8 x 8"),
    ],
)
def test_says_what_is_wrong_with_a_network(make: Callable[[], object], says: str) -> None:
    with pytest.raises(PluginError, match=says):
        custom(make)


def test_two_outputs_are_refused() -> None:
    def make() -> keras.Model:
        images = keras.Input((8, 8, 3))
        return keras.Model(images, [layers.ReLU()(images), layers.Softmax()(images)])

    with pytest.raises(PluginError, match="one input and one output, got 1 and 2"):
        custom(make)
