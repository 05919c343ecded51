"""What views draw."""

from __future__ import annotations

import numpy as np
import pytest

from automl_tl.augment import draw
from automl_tl.types import View

IMAGES = 200
UNCHANGED = np.eye(2, 3, dtype=np.float32)


def view(**kinds: object) -> View:
    nothing = {"flip": False, "rotation": 0.0, "crop": False, "colour": False}
    return View(1.0, 3, 1, **(nothing | kinds))  # type: ignore[arg-type]


def test_a_view_without_any_kind_is_the_image_itself() -> None:
    found = draw(view(), IMAGES)
    assert np.array_equal(found.affine, np.tile(UNCHANGED, (IMAGES, 1, 1)))
    assert (found.colour == 1).all()


@pytest.mark.parametrize("degrees", [15.0, 72.0])
def test_rotation_alone_turns_as_far_as_it_may(degrees: float) -> None:
    affine = draw(view(rotation=degrees), IMAGES).affine
    turned = np.rad2deg(np.arctan2(affine[:, 1, 0], affine[:, 0, 0]))
    assert 0.95 * degrees < np.abs(turned).max() <= degrees * 1.001
    square = affine[:, :, :2] @ affine[:, :, :2].transpose(0, 2, 1)
    np.testing.assert_allclose(square, np.tile(np.eye(2), (IMAGES, 1, 1)), atol=1e-6)
    assert not affine[:, :, 2].any()


def test_every_kind_draws_what_it_draws_among_all() -> None:
    every = draw(View(1.0, 3, 1), IMAGES)
    assert np.array_equal(draw(view(colour=True), IMAGES).colour, every.colour)
    cropped = draw(view(crop=True), IMAGES).affine
    assert np.array_equal(cropped[:, :, 2], every.affine[:, :, 2])
    mirrored = draw(view(flip=True), IMAGES).affine
    assert np.array_equal(mirrored[:, 0, 0], np.sign(every.affine[:, 0, 0]))
