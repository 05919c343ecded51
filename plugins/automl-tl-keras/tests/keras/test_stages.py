"""Networks that come as stages rather than as a functional model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from safetensors.numpy import load_file

from automl_tl.errors import PluginError, WeightsError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec, PhaseSpec
from automl_tl_keras.network import Network, build
from automl_tl_keras.pretrained import open_classifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 12
STABLE = {"warmup": PhaseSpec(1, 1e-3), "fine_tuning": PhaseSpec(1, 1e-4)}


def stages() -> dict[str, keras.Layer]:
    """A layer, a model of its own, and a layer that was built before."""
    rng = np.random.default_rng(0)

    def statistics(shape: Any, dtype: Any = None) -> Any:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)

    norm = layers.BatchNormalization(
        moving_mean_initializer=statistics, moving_variance_initializer=statistics
    )
    body = keras.Sequential(
        [layers.Conv2D(12, 3, strides=2, padding="same"), norm, layers.ReLU(), layers.Dropout(0.3)]
    )
    top = layers.Conv2D(16, 3, padding="same", name="built_before")
    top.build((None, None, None, 12))
    return {"stem": layers.Conv2D(8, 3, padding="same"), "body": body, "top": top}


def functional() -> keras.Model:
    """The same network, drawn in the same order."""
    value = images = keras.Input((None, None, 3))
    for name, stage in stages().items():
        stage.name = name
        for layer in getattr(stage, "layers", [stage]):
            value = layer(value)
    return keras.Model(images, value)


def backbone(name: str, make: Callable[[], Any]) -> Backbone:
    def load(path: Path | None) -> Any:
        return make()

    return Backbone(name, "keras", load, input_size=SIZE, parameters=1, min_size=1)


def built(make: Callable[[], Any]) -> Network:
    return build(NetworkSpec("keras/toy", SIZE, None, "random:0"), backbone("toy", make))


@pytest.fixture(scope="module")
def both(workshop: Any) -> tuple[Any, Any]:
    """The same network as a functional model and as stages."""
    plain = workshop(backbone("functional", functional), SIZE)
    staged = workshop(backbone("staged", stages), SIZE)
    return plain, staged


def test_every_stage_is_a_layer_with_a_cut_after_it(both: tuple[Any, Any]) -> None:
    plain, staged = both
    assert [(layer.name, layer.kind) for layer in staged.info.layers] == [
        ("input_layer", "InputLayer"),
        ("stem", "Conv2D"),
        ("body", "Sequential"),
        ("top", "Conv2D"),
    ]
    assert staged.cuts == [0, 1, 2, 3, 4]
    same = [cut for cut in plain.info.cuts if cut.index in (0, 1, 2, 6, 7)]
    assert [(c.shape, c.flops) for c in staged.info.cuts] == [(c.shape, c.flops) for c in same]
    count = sum(layer.parameters for layer in plain.info.layers)
    assert sum(layer.parameters for layer in staged.info.layers) == count
    assert staged.info.features == plain.info.features == 16


def test_the_same_network_gives_the_same_numbers(both: tuple[Any, Any], tmp_path: Path) -> None:
    plain, staged = both
    features = [np.load(shop.stored(shop.end, "avg").path) for shop in both]
    np.testing.assert_allclose(features[1], features[0], rtol=1e-4, atol=1e-6)
    _, _, expected = plain.train(plain.tuning(2, 2, **STABLE))
    trainer, _, found = staged.train(staged.tuning(2, 2, **STABLE))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    model = tmp_path / "model.safetensors"
    trainer.save(model, staged.facts(staged.job()).metadata())
    tensors = load_file(model)
    changed = {
        name
        for name, variable in build(staged.spec, staged.backbone).tensors().items()
        if not np.array_equal(tensors[f"backbone.{name}"], keras.ops.convert_to_numpy(variable))
    }
    assert any(name.startswith("top/") for name in changed)
    assert any(name.endswith("gamma") for name in changed)
    assert not [name for name in changed if name.startswith("stem/") or "moving" in name]
    loaded = staged.backend.load(model)
    logits = loaded.logits(staged.pixels)
    loaded.export("onnx", tmp_path / "model.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found_logits,) = session.run(None, {"pixels": staged.pixels})
    np.testing.assert_allclose(found_logits, logits, rtol=1e-3, atol=1e-4)


class Both(keras.Layer):
    def call(self, x: Any) -> Any:
        return x, x


def shared() -> dict[str, keras.Layer]:
    one = layers.Conv2D(3, 1)
    return {"first": one, "second": one}


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (dict, "at least one stage, got an empty mapping"),
    "name": (lambda: {"a/b": layers.ReLU()}, "made of letters, digits, _ and -, got 'a/b'"),
    "function": (
        lambda: {"a": keras.ops.relu},
        "stage a to be a Layer of the framework, got function",
    ),
    "twice": (shared, "every stage once, got one as first and as second"),
    "tuple": (lambda: {"a": layers.ReLU(), "b": Both(), "c": layers.ReLU()}, "stage b.*got tuple"),
}


@pytest.mark.parametrize("case", WRONG)
def test_stages_that_are_wrong_get_one_sentence(case: str) -> None:
    make, words = WRONG[case]
    with pytest.raises(PluginError, match=f"^keras/toy: expected.*{words}") as caught:
        built(make)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith("report it to the backbone's author.")


def test_a_size_that_a_stage_does_not_take_is_named() -> None:
    with pytest.raises(PluginError, match="12 x 12 pixels, from stage b on"):
        built(lambda: {"a": layers.ReLU(), "b": layers.Conv2D(3, 20)})


def test_stages_have_no_original_classifier(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="keras/toy: expected a network with its original"):
        open_classifier(backbone("toy", stages), tmp_path / "any")
