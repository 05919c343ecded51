"""The output of any layer, and the original classifier, against plain Keras code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from automl_tl.errors import UsageError, WeightsError
from automl_tl.plugins import get_plugins
from automl_tl.types import NetworkSpec, Source
from automl_tl_keras.backend import KerasBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 64
IMAGES = 3


class Steps:
    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []

    def step(self, what: str, done: int, total: int) -> None:
        self.done.append((done, total))


@pytest.fixture(scope="module")
def backend() -> KerasBackend:
    return KerasBackend(get_plugins().backbone)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    path = tmp_path / "pixels.npy"
    random = np.random.default_rng(0)
    np.save(path, random.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8))
    return path


@pytest.fixture
def extract(
    backend: KerasBackend, pixels: Path, tmp_path: Path
) -> Callable[..., NDArray[np.float32]]:
    def run(
        network: NetworkSpec | str, layer: str, pooling: Any = None, source: Source | None = None
    ) -> NDArray[np.float32]:
        if isinstance(network, str):
            network = NetworkSpec(network, SIZE, None, "random:0")
        out, steps = tmp_path / "out.npy", Steps()
        backend.extract(network, source or Source(pixels, 0), layer, pooling, out, steps)  # type: ignore[arg-type]
        assert steps.done[-1] == (IMAGES, IMAGES)
        assert not list(tmp_path.glob(".*"))
        return np.load(out)

    return run


def test_vgg19_is_what_plain_keras_computes(extract, pixels: Path, tmp_path: Path) -> None:
    base = keras.applications.VGG19(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    base.save_weights(tmp_path / "vgg19.weights.h5")
    model = keras.Model(base.input, base.get_layer("block4_pool").output)
    x = keras.applications.vgg19.preprocess_input(np.load(pixels).astype(np.float32))
    expected = model.predict(x, verbose=0)
    spec = NetworkSpec("keras/VGG19", SIZE, tmp_path / "vgg19.weights.h5", "vgg19")
    found = extract(spec, "block4_pool")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        extract(spec, "block4_pool", "max"), expected.max(axis=(1, 2)), rtol=1e-5, atol=1e-5
    )


def test_layers_inside_a_block_from_pixels_and_from_a_stored_cut(
    backend: KerasBackend, extract, pixels: Path, tmp_path: Path
) -> None:
    key = "keras/MobileNetV2"
    network = NetworkSpec(key, SIZE, None, "random:0")
    info = backend.describe(network)
    names = [layer.name for layer in info.layers]
    cut = next(cut for cut in info.cuts if cut.index == names.index("block_2_add") + 1)
    np.save(tmp_path / "cut.npy", extract(key, "block_2_add"))
    source = Source(tmp_path / "cut.npy", cut.index)
    inner = extract(key, "block_5_expand")
    np.testing.assert_allclose(
        extract(key, "block_5_expand", source=source), inner, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        extract(key, "block_5_expand", "avg"), inner.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
    pooled = extract(key, "block_2_add", "avg", source)
    np.testing.assert_allclose(pooled, np.load(source.path).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    first = extract(key, names[0])
    np.testing.assert_allclose(first, np.load(pixels) / 127.5 - 1, atol=1e-5)


def test_layers_that_cannot_be_had_are_told(extract, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no layer 'block_5_expnd'; did you mean block_5_expand"):
        extract("keras/MobileNetV2", "block_5_expnd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pixels.npy"]


def test_the_classifier_is_the_original_one(backend: KerasBackend, tmp_path: Path) -> None:
    side = 128
    options = {"alpha": 0.25, "input_shape": (side, side, 3), "weights": None}
    network = keras.applications.MobileNet(**options, classifier_activation=None)
    network.save_weights(tmp_path / "whole.weights.h5")
    model = backend.classifier("keras/MobileNet-0.25", tmp_path / "whole.weights.h5")
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    x = keras.applications.mobilenet.preprocess_input(pixels.astype(np.float32))
    expected = network.predict(x, verbose=0)
    found = model.logits(pixels, batch_size=2)
    assert found.shape == (3, 1000)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

    headless = keras.applications.MobileNet(**options, include_top=False)
    headless.save_weights(tmp_path / "headless.weights.h5")
    with pytest.raises(WeightsError, match=r"MobileNet-0\.25.*belongs to another one"):
        backend.classifier("keras/MobileNet-0.25", tmp_path / "headless.weights.h5")
