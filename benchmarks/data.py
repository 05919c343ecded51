"""The images that are measured with: one split for everybody, and pictures that are generated."""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from automl_tl.data import sources
from automl_tl.data.split import assign

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 5
_COLOURS = ((200, 60, 60), (60, 170, 80), (70, 90, 210), (210, 190, 70), (160, 80, 180))


def write_split(folder: Path, table: Path, seed: int = 0) -> None:
    """Split a folder of classes as a search would, and write it down for everybody.

    Args:
        folder: A sub-folder of images a class.
        table: A CSV with the columns ``path,label,split``.
        seed: Of the split.
    """
    index = sources.folder(folder)
    hashes = [hashlib.sha256(item.path.read_bytes()).hexdigest() for item in index.items]
    labels = [item.label for item in index.items]
    given = [item.split for item in index.items]
    splits = assign(labels, hashes, given, seed, classes=index.classes).splits
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        for item, split in zip(index.items, splits, strict=True):
            if split:
                writer.writerow((item.path, index.classes[item.label], split))


def pictures(folder: Path, count: int, side: int = 96) -> None:
    """Write distinct JPEGs: a class is a colour and a shape, in noise that keeps it from easy.

    Args:
        folder: To create, with a sub-folder a class.
        count: Images in all.
        side: In pixels.
    """
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        label = number % CLASSES
        coarse = random.integers(0, 160, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        x, y = (int(v) for v in random.integers(0, side // 2, 2))
        size = int(random.integers(side // 4, side // 2))
        shift = random.integers(-40, 40, 3)
        colour = tuple(int(c + v) for c, v in zip(_COLOURS[label], shift, strict=True))
        draw.regular_polygon((x + size / 2, y + size / 2, size / 2), label + 3, fill=colour)
        image.save(folder / f"class{label}" / f"{number:06d}.jpg", quality=85)


def photographs(folder: Path, count: int) -> None:
    """Write JPEGs of 12 megapixels with detail at every scale, as a camera's are.

    Args:
        folder: To create, with one sub-folder.
        count: Images in all.
    """
    random = np.random.default_rng(0)
    (folder / "class0").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        canvas = np.zeros((3000, 4000, 3), np.float32)
        for cells in (4, 16, 64, 256, 1024):
            noise = random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
            layer = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BILINEAR)
            canvas += np.asarray(layer, np.float32) * (2.0 / cells**0.5)
        canvas *= 255 / canvas.max()
        image = Image.fromarray(canvas.astype(np.uint8))
        image.save(folder / "class0" / f"{number:06d}.jpg", quality=90)
