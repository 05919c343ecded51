"""The data of a study: every image by name, class, split and content, as text and back."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.csv_rows import row_writer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from automl_tl.types import Split

_COLUMNS = ("name", "class", "split", "sha256")
_REPEATED = ("class", "split")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class StudyData:
    """The data of a study.

    Attributes:
        classes: Class names, in the order of the labels.
        names: Every image by name, in the order of the pixel arrays.
        labels: int64, one an image.
        splits: One an image; None for broken images and those left out.
        hashes: SHA-256 of every file.
        dataset_hash: Identity of all images together.
        facts: Everything else to show: broken images, notes, sizes.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[Split | None, ...]
    hashes: tuple[str, ...]
    dataset_hash: str
    facts: Mapping[str, Any]

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of a split's images, ascending; not to be written to."""
        return self._rows[split]

    @cached_property
    def _rows(self) -> dict[Split, NDArray[np.int64]]:
        return {
            split: np.array([i for i, s in enumerate(self.splits) if s == split], dtype=np.int64)
            for split in SPLITS
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images, a class and split."""
        table: dict[str, dict[str, int]] = {
            name: {split: 0 for split in SPLITS} for name in self.classes
        }
        for label, split in zip(self.labels, self.splits, strict=True):
            if split:
                table[self.classes[label]][split] += 1
        return table


def as_csv(data: StudyData) -> str:
    """Return the images as a CSV: name, class, split, SHA-256."""
    table = io.StringIO()
    write = row_writer(table)
    write(_COLUMNS)
    for name, label, split, digest in zip(
        data.names, data.labels, data.splits, data.hashes, strict=True
    ):
        write((name, data.classes[label], split or "", digest))
    return table.getvalue()


def as_facts(data: StudyData) -> dict[str, Any]:
    """Return everything but the images, JSON-ready."""
    return {"classes": list(data.classes), "dataset_hash": data.dataset_hash, **data.facts}


def parse(facts: Mapping[str, Any], table: str) -> StudyData:
    """Read what ``as_facts`` and ``as_csv`` wrote.

    Raises:
        KeyError, TypeError, ValueError: When it is damaged.
    """
    rest = dict(facts)
    classes = tuple(str(name) for name in rest.pop("classes"))
    index = {name: label for label, name in enumerate(classes)}
    columns: tuple[list[str], ...] = ([], [], [], [])
    try:
        for row in csv.DictReader(io.StringIO(table, newline="")):  # a million rows, held once
            for column, key in zip(columns, _COLUMNS, strict=True):
                column.append(intern(row[key]) if key in _REPEATED else row[key])
    except csv.Error as error:
        raise ValueError(str(error)) from None
    names, labels, splits, hashes = columns
    return StudyData(
        classes=classes,
        names=tuple(names),
        labels=np.array([index[label] for label in labels], dtype=np.int64),
        splits=tuple(map(_split, splits)),
        hashes=tuple(hashes),
        dataset_hash=str(rest.pop("dataset_hash")),
        facts=rest,
    )


def _split(text: str) -> Split | None:
    if text in {"train", "validation", "test"}:
        return text  # type: ignore[return-value]
    if text:
        raise ValueError(f"unknown split {text!r}")
    return None
