"""What a data source yields: the images of a data set, by name and class, nothing decoded yet."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.types import Split

SPLIT_NAMES: Mapping[str, Split] = MappingProxyType(
    {
        "train": "train",
        "val": "validation",
        "valid": "validation",
        "validation": "validation",
        "test": "test",
    }
)
"""What folders and CSV files call the splits, in any case."""
STRICTEST_FIRST: tuple[Split, ...] = ("test", "validation", "train")
"""Of several splits that an image is put into, the first of these counts."""


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One labelled image file.

    Attributes:
        path: The file to read.
        name: How a person would recognise it: its path below the data set's root, with ``/``.
        label: Index into the classes.
        split: Where the data set itself puts it; None leaves that to the study.
    """

    path: Path
    name: str
    label: int
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class DataIndex:
    """All images of a data set, sorted by name.

    Attributes:
        name: Short name, fit for a study directory.
        source: What the person typed, as an absolute path where it is one.
        classes: Sorted class names.
        items: Sorted by name.
        notes: Sentences a person should know (files that are no images, empty folders, ...).
    """

    name: str
    source: str
    classes: tuple[str, ...]
    items: tuple[ImageItem, ...]
    notes: tuple[str, ...] = ()
