"""torchvision's image classification sets as named data sources, from facts in this module.

torchvision downloads and reads a set in a process of its own, once (``export_dataset``); what is
left is image files and a table, so that this module imports no framework. Listed are the sets that
torchvision downloads by itself and checks by hash.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from automl_tl.errors import DataError
from automl_tl.specs import DatasetSpec, dataset_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.data.index import DataIndex
    from automl_tl.types import Split

TABLE = "index.csv"
DOWNLOADS = "download"

_BY_FLAG: Mapping[Split, Mapping[str, object]] = {
    "train": {"train": True},
    "test": {"train": False},
}
_BY_NAME: Mapping[Split, Mapping[str, object]] = {
    "train": {"split": "train"},
    "test": {"split": "test"},
}
_IN_THREE: Mapping[Split, Mapping[str, object]] = {
    **_BY_NAME,
    "validation": {"split": "val"},
}
_IDX = tuple(f"{part}-ubyte.gz" for part in (
    "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class TorchvisionSet:
    """A class of ``torchvision.datasets``.

    Attributes:
        name: Of the class.
        megabytes: How much it downloads, rounded down.
        description: One line.
        files: What is downloaded, below torchvision's ``root``.
        splits: What the class must be told for each of the set's splits; None stands for a set
            without splits.
        licence: Of the images.
        loads: The class takes a ``loader``.
        paths: Its attribute with the image files, where it takes no loader.
    """

    name: str
    megabytes: int
    description: str
    files: tuple[str, ...]
    splits: Mapping[Split, Mapping[str, object]] | None = field(default_factory=lambda: _BY_NAME)
    licence: str = "unknown"
    loads: bool = False
    paths: str | None = None


SETS = (
    TorchvisionSet(
        "CIFAR10",
        170,
        "60,000 pictures of 10 kinds of animals and vehicles, 32 x 32 pixels",
        ("cifar-10-binary.tar.gz",),
    ),
    TorchvisionSet(
        "CIFAR100",
        168,
        "60,000 pictures of 100 kinds of things, 32 x 32 pixels",
        ("cifar-100-binary.tar.gz",),
    ),
    TorchvisionSet(
        "DTD",
        625,
        "5,640 photographs of 47 textures, the first of ten splits",
        ("dtd/dtd-r1.0.1.tar.gz",),
        _IN_THREE,
        "for research only",
        loads=True,
    ),
    TorchvisionSet(
        "EuroSAT",
        94,
        "27,000 satellite images of 10 kinds of land, 64 x 64 pixels",
        ("eurosat/EuroSAT.zip",),
        None,
        "MIT",
        loads=True,
    ),
    TorchvisionSet(
        "FashionMNIST",
        30,
        "70,000 pictures of 10 kinds of clothes, 28 x 28 pixels",
        tuple(f"FashionMNIST/raw/{file}" for file in _IDX),
        _BY_FLAG,
        "MIT",
    ),
    TorchvisionSet(
        "Flowers102",
        344,
        "8,189 photographs of 102 flowers",
        tuple(f"flowers-102/{file}" for file in ("102flowers.tgz", "imagelabels.mat", "setid.mat")),
        _IN_THREE,
        loads=True,
    ),
    TorchvisionSet(
        "Food101",
        4996,
        "101,000 photographs of 101 dishes",
        ("food-101.tar.gz",),
        loads=True,
    ),
    TorchvisionSet(
        "GTSRB",
        276,
        "39,270 photographs of 43 German traffic signs",
        tuple(
            f"gtsrb/{file}.zip"
            for file in (
                "GTSRB-Training_fixed",
                "GTSRB_Final_Test_Images",
                "GTSRB_Final_Test_GT",
            )
        ),
    ),
    TorchvisionSet(
        "Imagenette",
        1557,
        "13,394 photographs of 10 easy classes of ImageNet",
        ("imagenette2.tgz",),
        {"train": {"split": "train"}, "validation": {"split": "val"}},
        "ImageNet's terms: for research only",
        loads=True,
    ),
    TorchvisionSet(
        "KMNIST",
        21,
        "70,000 cursive Japanese characters of 10 kinds, 28 x 28 pixels",
        tuple(f"KMNIST/raw/{file}" for file in _IDX),
        _BY_FLAG,
        "CC-BY-SA-4.0",
    ),
    TorchvisionSet(
        "MNIST",
        11,
        "70,000 handwritten digits, 28 x 28 pixels",
        tuple(f"MNIST/raw/{file}" for file in _IDX),
        _BY_FLAG,
        "CC-BY-SA-3.0",
    ),
    TorchvisionSet(
        "OxfordIIITPet",
        811,
        "7,349 photographs of 37 breeds of cats and dogs",
        tuple(f"oxford-iiit-pet/{file}.tar.gz" for file in ("images", "annotations")),
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        "CC-BY-SA-4.0",
        paths="_images",
    ),
    TorchvisionSet(
        "STL10",
        2640,
        "13,000 labelled pictures of 10 kinds of animals and vehicles, 96 x 96 pixels",
        ("stl10_binary.tar.gz",),
    ),
    TorchvisionSet(
        "SVHN",
        246,
        "99,289 house-number digits from street photographs, 32 x 32 pixels",
        ("train_32x32.mat", "test_32x32.mat"),
        licence="for non-commercial use only",
    ),
)


def torchvision_datasets() -> list[DatasetSpec]:
    """Return torchvision's sets, in alphabetical order."""
    return [
        DatasetSpec(
            f"torchvision/{one.name}",
            load=functools.partial(load, one),
            description=one.description,
            licence=one.licence,
            download_bytes=one.megabytes * 10**6,
        )
        for one in SETS
    ]


def load(one: TorchvisionSet, cache_directory: Path) -> DataIndex:
    """Return a set's images; downloads it the first time.

    Its folder holds ``index.csv``, which is written last, and the image files below ``images`` or,
    where torchvision unpacks files, ``download``.

    Raises:
        DataError: It cannot be downloaded or read.
    """
    from filelock import FileLock

    from automl_tl.data.csv_source import read_csv
    from automl_tl.data.sources import build

    name = f"torchvision/{one.name}"
    folder = dataset_folder(name, cache_directory)
    table = folder / TABLE
    if not table.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not table.is_file():
                    _export(one, folder)
        except OSError as error:
            raise DataError(
                f"{name} cannot be written to {folder} ({error.strerror or error}): make room, or "
                "pass a local folder as DATA."
            ) from None
    return build(one.name, name, *read_csv(table))


def _export(one: TorchvisionSet, folder: Path) -> None:
    """Have the set downloaded and written, in a process that may import torchvision."""
    command = [sys.executable, "-m", "automl_tl_torch.export_dataset", one.name, str(folder)]
    reading, writing = os.pipe()  # closed when this process ends, however; then that one ends too
    try:
        done = subprocess.run(command, stdin=reading, capture_output=True, text=True, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    if done.returncode:
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
        reason = lines[-1] if lines else f"its process ended with {done.returncode}"
        raise DataError(
            f"torchvision/{one.name} cannot be downloaded ({reason}): put {_listed(one.files)} "
            f"into {folder / DOWNLOADS}, or pass a local folder of the images as DATA."
        )


def _listed(files: tuple[str, ...]) -> str:
    *others, last = files
    return f"{', '.join(others)} and {last}" if others else last
