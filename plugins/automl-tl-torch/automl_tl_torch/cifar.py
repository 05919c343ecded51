"""CIFAR-10 and CIFAR-100 in their binary form, because torchvision reads the pickled one.

A record is one or two label bytes, the last of them the class, and 3 x 32 x 32 bytes of red, green
and blue (Krizhevsky, 2009; https://www.cs.toronto.edu/~kriz/cifar.html, hashes from there, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from automl_tl.types import Split

_URL = "https://www.cs.toronto.edu/~kriz/"
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two sets.

    Attributes:
        archive: File name.
        md5: Its published hash.
        folder: What it unpacks to.
        names: File with the classes' names.
        labels: Label bytes a record.
        files: Files of each split.
    """

    archive: str
    md5: str
    folder: str
    names: str
    labels: int
    files: Mapping[Split, tuple[str, ...]]


SETS: Mapping[str, Cifar] = {
    "CIFAR10": Cifar(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        "batches.meta.txt",
        1,
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
    ),
    "CIFAR100": Cifar(
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
        "fine_label_names.txt",
        2,
        {"train": ("train.bin",), "test": ("test.bin",)},
    ),
}


def read(name: str, root: Path) -> dict[Split, Iterator[tuple[Image.Image, str]]]:
    """Return the pictures of each split and their classes; downloads what is missing.

    Args:
        name: ``CIFAR10`` or ``CIFAR100``.
        root: Where the archive is, or will be.

    Raises:
        OSError, RuntimeError: It cannot be downloaded or unpacked.
    """
    from automl_tl_torch.vision import torchvision

    one = SETS[name]
    utils = torchvision.datasets.utils
    utils.download_and_extract_archive(f"{_URL}{one.archive}", str(root), md5=one.md5)
    folder = root / one.folder
    names = (folder / one.names).read_text(encoding="utf-8").split()
    return {
        split: _pictures([folder / file for file in files], one.labels, names)
        for split, files in one.files.items()
    }


def _pictures(
    files: list[Path], labels: int, names: list[str]
) -> Iterator[tuple[Image.Image, str]]:
    for file in files:
        records = np.fromfile(file, np.uint8).reshape(-1, labels + _PIXELS)
        for record in records:
            pixels = record[labels:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
            yield Image.fromarray(np.ascontiguousarray(pixels)), names[record[labels - 1]]
