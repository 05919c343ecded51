"""``keras/tiny`` against its own description: what NumPy computes from the shipped weights."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from automl_tl import tiny
from automl_tl.errors import WeightsError
from automl_tl_keras.tiny import build, build_classifier, tiny_backbone

if TYPE_CHECKING:
    from pathlib import Path


def convolve(x: np.ndarray, tensors: dict[str, np.ndarray], name: str, norm: str) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    y = np.einsum("nhwcij,ocij->nhwo", windows, tensors[f"{name}.weight"])
    mean, variance, scale, shift = (
        tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (y - mean) / np.sqrt(variance + 1e-3) * scale + shift


def reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feature map and logits in float64, from the documented operations alone."""
    tensors = {k: v.astype(np.float64) for k, v in load_file(tiny.weights_path()).items()}
    x = np.maximum(convolve(x, tensors, "features.stem.0", "features.stem.1"), 0)
    for number in range(1, 4):
        stage = f"features.stage{number}"
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        x = np.maximum(convolve(x, tensors, f"{stage}.1", f"{stage}.2"), 0)
        body = f"{stage}.4.body"
        inner = np.maximum(convolve(x, tensors, f"{body}.0", f"{body}.1"), 0)
        x = np.maximum(x + convolve(inner, tensors, f"{body}.3", f"{body}.4"), 0)
    logits = x.mean((1, 2)) @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    return x, logits


def test_features_and_logits_are_those_of_the_shipped_weights() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    maps, logits = reference(images.astype(np.float64))

    seen = keras.ops.convert_to_numpy(build(tiny.weights_path())(images))
    classified = keras.ops.convert_to_numpy(build_classifier(tiny.weights_path())(images))

    np.testing.assert_allclose(seen, maps, atol=1e-5 * np.abs(maps).max())
    np.testing.assert_allclose(classified, logits, atol=1e-4 * np.abs(logits).max())


def test_the_description_is_true() -> None:
    backbone = tiny_backbone()
    network = backbone.load_classifier(tiny.weights_path())
    count = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert backbone.key == "keras/tiny"
    assert backbone.parameters == count
    assert backbone.load(None).output_shape == (None, None, None, tiny.STAGES[-1])
    assert build(None, image_size=45).output_shape == (None, 5, 5, tiny.STAGES[-1])


def test_every_stored_tensor_is_used_and_layers_are_named_as_in_torch() -> None:
    stored = {name.rpartition(".")[0].replace(".", "_") for name in load_file(tiny.weights_path())}
    network = build_classifier(None)
    assert {layer.name for layer in network.layers if layer.weights} == stored
    names = [layer.name for layer in network.layers]
    assert names[1:5] == [
        "features_stem_0",
        "features_stem_1",
        "features_stem_2",
        "features_stage1_0",
    ]


def test_random_weights_follow_the_seed() -> None:
    kernels = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        kernels.append(build().get_layer("features_stem_0").get_weights()[0])
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def another_width(path: Path) -> None:
    tensors = load_file(tiny.weights_path())
    save_file(tensors | {"features.stem.0.weight": np.zeros((8, 3, 3, 3), np.float32)}, path)


def wrong_header(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p: save_file({"fc.weight": np.zeros((2, 2))}, p), r"no features\.stem\.0\.weight"),
        (another_width, r"features\.stem\.0\.weight has shape \(8, 3, 3, 3\)"),
        (lambda p: p.write_bytes(tiny.weights_path().read_bytes()[:5000]), "cannot be read"),
        (wrong_header, "cannot be read"),
        (lambda p: p.mkdir(), "cannot be read"),
        (lambda _: None, "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, write: Any, says: str) -> None:
    path = tmp_path / "some.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=says) as error:
        build(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
