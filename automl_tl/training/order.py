"""The order in which images are trained on, the same for every framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64
"""Images that lie together on disk and are read together."""
WINDOW = 128
"""Blocks that are mixed with one another."""


def shuffled(images: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw an order to train in that suits a disk, whatever the images are stored in.

    Blocks of 64 neighbours are shuffled; then all images of 128 blocks at a time. Up to 8,192
    images this is a plain shuffle. It depends on the number of images and the generator only, so
    that training from any cut sees the same order.
    """
    blocks = random.permutation(-(-images // BLOCK))
    order = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    order = order[order < images]
    for start in range(0, images, BLOCK * WINDOW):
        random.shuffle(order[start : start + BLOCK * WINDOW])
    return order
