from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl_tl.augment import ViewParameters, draw
from automl_tl.types import View
from automl_tl_keras import augment

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114])


def reflect(position: float, size: int) -> float:
    """Fold a pixel position back between -0.5 and size - 0.5, the outer edges of the pixels."""
    position = (position + 0.5) % (2 * size)
    return (position if position <= size else 2 * size - position) - 0.5


def sample(image: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """Bilinear sample at pixel coordinates, reflected at the border."""
    height, width = image.shape[:2]
    x = min(max(reflect(x, width), 0), width - 1)
    y = min(max(reflect(y, height), 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = x - left, y - top
    upper = image[top, left] * (1 - a) + image[top, right] * a
    lower = image[bottom, left] * (1 - a) + image[bottom, right] * a
    return np.asarray(upper * (1 - b) + lower * b)


def reference(
    pixels: NDArray[np.uint8], affine: NDArray[np.float32], colour: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Augment one image, pixel by pixel, as the core's docstring says."""
    image = pixels.astype(np.float64)
    height, width = image.shape[:2]
    out = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            at = np.array([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1.0])
            u, v = affine.astype(np.float64) @ at
            out[i, j] = sample(image, ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2)
    brightness, contrast, saturation = colour.astype(np.float64)
    out = out * brightness
    mean = (out @ LUMA).mean()
    out = (out - mean) * contrast + mean
    luma = (out @ LUMA)[:, :, None]
    out = (out - luma) * saturation + luma
    return np.clip(out, 0, 255)


def images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def apply(pixels: NDArray[np.generic], parameters: ViewParameters) -> NDArray[np.float32]:
    return np.asarray(keras.ops.convert_to_numpy(augment.apply(pixels, parameters)))


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("shape", [(12, 12), (7, 10)])
def test_agrees_with_a_loop_over_pixels(strength: float, shape: tuple[int, int]) -> None:
    pixels = images(6, *shape)
    parameters = draw(View(strength, seed=3, index=1), len(pixels))
    assert (parameters.affine[:, 0, 0] < 0).any() and (parameters.affine[:, 0, 0] > 0).any()
    actual = apply(pixels, parameters)
    assert actual.dtype == np.float32
    for k, image in enumerate(pixels):
        expected = reference(image, parameters.affine[k], parameters.colour[k])
        assert np.abs(actual[k] - expected).max() < 0.02


def test_samples_far_outside_are_reflected() -> None:
    pixels = images(1, 9, 9)
    affine = np.array([[[2.5, 0.3, 0.9], [-0.4, 3.0, -1.2]]], np.float32)
    parameters = ViewParameters(affine, np.ones((1, 3), np.float32))
    expected = reference(pixels[0], affine[0], parameters.colour[0])
    assert np.abs(apply(pixels, parameters)[0] - expected).max() < 0.02


def test_identity_changes_nothing() -> None:
    pixels = images(2, 8, 8)
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    parameters = ViewParameters(affine, np.ones((2, 3), np.float32))
    for given in (pixels, pixels.astype(np.float32)):
        assert np.abs(apply(given, parameters) - pixels).max() < 1e-3


def test_works_in_a_compiled_function_for_any_batch() -> None:
    function = tf.function(
        lambda x, affine, colour: augment.apply(x, ViewParameters(affine, colour)),
        input_signature=[
            tf.TensorSpec((None, 8, 8, 3), "uint8"),
            tf.TensorSpec((None, 2, 3), "float32"),
            tf.TensorSpec((None, 3), "float32"),
        ],
    )
    pixels = images(5, 8, 8)
    parameters = draw(View(1.0, seed=0, index=0), 5)
    together = apply(pixels, parameters)
    for part in (slice(0, 1), slice(1, 5)):
        own = function(pixels[part], parameters.affine[part], parameters.colour[part]).numpy()
        assert np.abs(own - together[part]).max() < 1e-3
