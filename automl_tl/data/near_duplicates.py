"""Finds images that look alike without comparing all pairs.

An image's fingerprint is Krawetz's 64-bit difference hash ("Kind of like that", 2013): is each
cell of an 8 x 9 thumbnail brighter than its left neighbour? Two hashes that differ in at most four
bits agree completely in one of five bands of bits, so only images that share a band are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from automl_tl.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THUMBNAIL = 72
"""Side of a square that is large enough for ``cells``: a multiple of 8 and of 9."""

MAX_BITS = 4
MAX_DIFFERENCE = 6.0
_MIN_CONTRAST = 16
_BANDS = (13, 13, 13, 13, 12)
_MAX_NEIGHBOURS = 500
_MAX_PAIRS = 2_500_000
"""Where a crowd looks alike, about so many pairs are found in a band: 20 MB."""
_FEW_NEIGHBOURS = 20


def cells(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average a uint8 RGB square to an 8 x 9 grid of luma, uint8."""
    luma = Image.fromarray(square).convert("L")
    return np.asarray(luma.resize((9, 8), Image.Resampling.BOX))


def count_across(
    pixels: NDArray[np.uint8], hashes: Sequence[str], splits: Sequence[str | None]
) -> int:
    """Count the pairs of images that look alike and lie in different splits.

    Made to be quick on any data; of a large crowd that look alike, only some pairs count.

    Args:
        pixels: uint8 RGB ``(n, size, size, 3)``.
        hashes: Of the files; of images with the same one, the first stands for all.
        splits: None leaves an image out.
    """
    chosen = [row for row, split in enumerate(splits) if split]
    first = list({hashes[row]: row for row in reversed(chosen)}.values())[::-1]
    grids, pages = [], Pages(pixels)
    for row in first:
        grids.append(cells(pixels[row]))
        pages.touch(pixels[row])
    squares = np.stack(grids) if grids else np.empty((0, 8, 9), np.uint8)
    pairs, _ = find_pairs(squares, _FEW_NEIGHBOURS)
    return len(across(pairs, [splits[row] for row in first]))


def across(pairs: NDArray[np.int64], splits: Sequence[str | None]) -> NDArray[np.int64]:
    """Return those pairs of ``find_pairs`` whose images lie in different splits.

    Args:
        pairs: int64 ``(pairs, 2)``.
        splits: Of the images that were compared, in their order.
    """
    codes = {split: code for code, split in enumerate(dict.fromkeys(splits))}
    sides = np.array([codes[split] for split in splits], np.int8)
    left, right = sides[pairs].T
    found: NDArray[np.int64] = pairs[left != right]
    return found


def find_pairs(
    grids: NDArray[np.uint8], neighbours: int = _MAX_NEIGHBOURS
) -> tuple[NDArray[np.int64], bool]:
    """Find pairs of images that look alike.

    Their difference hashes differ in at most ``MAX_BITS`` bits, and their grids, each less its own
    mean, by at most ``MAX_DIFFERENCE`` levels in the mean, which drops images that only share a
    gradient. Images with hardly any contrast are never paired.

    Args:
        grids: uint8 ``(n, 8, 9)`` as ``cells`` returns them.
        neighbours: Bound on the images of a band that one is compared with.

    Returns:
        int64 ``(pairs, 2)``, sorted, the smaller index first; and whether the search was cut
        short because more than ``neighbours`` images shared a band, or, of thousands, so many
        look alike that further partners of one are left out. Who has any, has some.
    """
    most = min(neighbours, max(_FEW_NEIGHBOURS, _MAX_PAIRS // max(1, len(grids))))
    steps = grids[:, :, 1:] > grids[:, :, :-1]
    hashes = (
        np.packbits(steps.reshape(len(grids), 64), axis=1).view(">u8").ravel().astype(np.uint64)
    )
    flat = grids.reshape(len(grids), 72).astype(np.float32)
    usable = np.flatnonzero(
        flat.max(axis=1, initial=0) - flat.min(axis=1, initial=255) >= _MIN_CONTRAST
    )
    centred = flat - flat.mean(axis=1, keepdims=True)
    found, truncated, shift = np.empty(0, np.int64), False, 0
    for width in _BANDS:
        band = (hashes[usable] >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        shift += width
        order = np.argsort(band, kind="stable")
        band, rows = band[order], usable[order]
        pairs, partners = [found], np.zeros(len(rows), np.int64)
        for distance in range(1, neighbours + 2):
            left = np.flatnonzero(band[distance:] == band[:-distance])
            if not len(left):
                break
            if distance > neighbours:
                truncated = True
                break
            wanting = partners[left] < most
            truncated |= not wanting.all()
            left = left[wanting]
            first, second = rows[left], rows[left + distance]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_BITS
            left, first, second = left[near], first[near], second[near]
            alike = np.abs(centred[first] - centred[second]).mean(axis=1) <= MAX_DIFFERENCE
            partners[left[alike]] += 1
            first, second = first[alike], second[alike]
            pairs.append(np.minimum(first, second) * len(grids) + np.maximum(first, second))
        found = np.unique(np.concatenate(pairs))
    return np.stack(np.divmod(found, max(1, len(grids))), axis=1), truncated
