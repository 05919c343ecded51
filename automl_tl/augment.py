"""Augmentation parameters, drawn once in NumPy so that every framework sees the same images.

A view holds one draw for every image: an affine map, which covers flip, crop, rotation, shift and
stretch in a single resampling, and three colour factors. Backends apply a view to pixels on their
own device, following the formulas here; view k stands for what epoch k would have drawn online.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_tl.types import View


VERSION = 1
"""Of the draws and formulas below; stored views carry it."""


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """Parameters of one view, one row an image.

    Attributes:
        affine: float32 ``(n, 2, 3)``. Maps normalised output coordinates ``(x, y, 1)`` in
            ``[-1, 1]``, pixel centres at ``(2 i + 1) / size - 1``, to normalised input
            coordinates; sample bilinearly, reflect at the border (PyTorch's ``affine_grid`` and
            ``grid_sample`` with ``align_corners=False`` and ``padding_mode="reflection"``).
        colour: float32 ``(n, 3)``: brightness, contrast and saturation factors, applied in this
            order to values in ``[0, 255]``: ``x * b``; ``(x - m) * c + m`` with ``m`` the image's
            mean luma; ``(x - l) * s + l`` with ``l`` each pixel's luma (0.299, 0.587, 0.114);
            then clip to ``[0, 255]``.
    """

    affine: NDArray[np.float32]
    colour: NDArray[np.float32]


def draw(view: View, images: int) -> ViewParameters:
    """Draw the parameters of a view; the same arguments always give the same draw.

    At strength 1: horizontal flip with probability 0.5, zoom to between 65 % and 100 % of each
    side, rotation up to the view's angle, shift as far as the zoom leaves room, brightness,
    contrast and saturation within 30 %. Other strengths scale every range but the flip's. What the
    view leaves out changes no draw of the rest.

    Args:
        view: Strength, seed and index of the view, and what it changes.
        images: Number of images.
    """
    random = np.random.default_rng([view.seed, view.index, round(view.strength * 1000)])
    strength = view.strength
    mirrored = random.random(images) < 0.5
    flip = np.where(mirrored & view.flip, -1.0, 1.0)
    zoom = 1 - 0.35 * strength * view.crop * random.random((images, 2))
    angle = np.deg2rad(view.rotation * strength) * random.uniform(-1, 1, images)
    shift = (1 - zoom) * random.uniform(-1, 1, (images, 2))
    cos, sin = np.cos(angle), np.sin(angle)
    affine = np.empty((images, 2, 3), np.float32)
    affine[:, 0, 0] = zoom[:, 0] * cos * flip
    affine[:, 0, 1] = -zoom[:, 0] * sin
    affine[:, 1, 0] = zoom[:, 1] * sin * flip
    affine[:, 1, 1] = zoom[:, 1] * cos
    affine[:, :, 2] = shift
    colour = 1 + 0.3 * strength * view.colour * random.uniform(-1, 1, (images, 3))
    return ViewParameters(affine, colour.astype(np.float32))
