"""Splits a data set into train, validation and test: stratified, seeded, without leaks.

Images with the same bytes are one group and stay together. Within a class, groups are ordered by
a hash of the seed and their content, so a split depends neither on file names nor on a library's
random numbers, and hardly changes when images are added.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_tl.data.index import STRICTEST_FIRST
from automl_tl.errors import DataError
from automl_tl.units import are, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from automl_tl.types import Split

_MINIMUM = 3


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Where every image goes.

    Attributes:
        splits: One an image, in the order given; None leaves it out.
        notes: Sentences a person should know.
    """

    splits: tuple[Split | None, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """Images with the same bytes."""

    digest: str
    label: int
    members: list[int]
    given: Split | None
    split: Split


def assign(
    labels: Sequence[int],
    hashes: Sequence[str],
    given: Sequence[Split | None],
    seed: int,
    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15),
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> SplitResult:
    """Assign every image to a split.

    Splits that the data gives are kept; images without one count as train where others have one.
    A missing test split is half of a given validation split, else it is cut from train; a missing
    validation split is cut from train. Cuts are stratified, and leave every split at least one
    image of every class that has enough. Of copies of an image in several given splits, those in
    test stay, before validation, before train, and the others are left out. Identical images with
    different labels are all left out.

    Args:
        labels: Class of every image.
        hashes: Hash of every file's bytes; an empty one marks a broken image, which is left out.
        given: Split of every image as the data has it.
        seed: Of the order within a class.
        fractions: Train, validation and test.
        classes: Names of the classes, for messages and to miss those without any image.
        names: Names of the images, for the notes.

    Raises:
        DataError: A class has fewer than three distinct images, or none to train on.
    """
    notes: list[str] = []
    unsaid = given.count(None)
    if 0 < unsaid < len(given):
        count = "counts" if unsaid == 1 else "count"
        notes.append(
            f"{plural(unsaid, 'image')} {are(unsaid)} in no split of the data and {count} as train."
        )
    groups = _group(labels, hashes, given, names, notes)
    titles = (
        list(classes) if classes else [str(label) for label in range(max(labels, default=0) + 1)]
    )
    _check(groups, titles, labels)
    _complete(groups, seed, fractions, notes)
    splits: list[Split | None] = [None] * len(labels)
    left_out = 0
    for group in groups:
        for member in group.members:
            if given[member] in {None, group.given}:
                splits[member] = group.split
            else:
                left_out += 1
    if left_out:
        notes.append(
            f"{plural(left_out, 'exact copy')} of images in another split {are(left_out)} left "
            "out: the copy in test stays before the one in validation, and that before the one in "
            "train."
        )
    _check_coverage(groups, titles, notes)
    return SplitResult(tuple(splits), tuple(notes))


def _group(
    labels: Sequence[int],
    hashes: Sequence[str],
    given: Sequence[Split | None],
    names: Sequence[str] | None,
    notes: list[str],
) -> list[_Group]:
    """Group sound images by content; those with contradicting labels are left out and noted."""
    copies: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(hashes):
        if digest:
            copies[digest].append(index)
    groups, contradicting = [], []
    for digest, members in copies.items():
        label = labels[members[0]]
        if len(members) > 1 and any(labels[member] != label for member in members):
            contradicting.append(members)
            continue
        present = {given[member] for member in members}
        first = next((split for split in STRICTEST_FIRST if split in present), None)
        groups.append(_Group(digest, label, members, first, first or "train"))
    if contradicting:
        count = sum(map(len, contradicting))
        example = " and ".join(names[member] for member in contradicting[0][:2]) if names else ""
        notes.append(
            f"{plural(count, 'image')} are left out because exact copies have another label"
            f"{f' ({example})' if example else ''}."
        )
    return groups


def _check(groups: list[_Group], titles: list[str], labels: Sequence[int]) -> None:
    counts = Counter(group.label for group in groups)
    few = [label for label in range(len(titles)) if counts[label] < _MINIMUM]
    if few:
        label, more = few[0], len(few) - 1
        others = f" (too few also in {plural(more, 'other class')})" if more else ""
        raise DataError(
            f"The class {titles[label]!r} needs at least {_MINIMUM} distinct sound images, one a "
            f"split, but has {counts[label]} in {plural(labels.count(label), 'file')}{others}: a "
            "search refuses such data, so add images, or remove the class."
        )


def _complete(
    groups: list[_Group], seed: int, fractions: tuple[float, float, float], notes: list[str]
) -> None:
    """Cut the splits that the data does not give."""
    present = {group.given for group in groups} - {None}
    for_train, for_validation, for_test = fractions
    groups.sort(key=lambda group: hashlib.sha256(f"{seed}:{group.digest}".encode()).digest())

    def cut(source: Split, into: Split, share: float, leave: int) -> None:
        chosen = _choose([group for group in groups if group.split == source], share, leave)
        for group in chosen:
            group.split = into

    if "test" not in present and "validation" in present:
        cut("validation", "test", 0.5, leave=1)
        covered = {group.label for group in groups if group.split == "test"}
        rest = [g for g in groups if g.split == "train" and g.label not in covered]
        for group in _choose(rest, for_test, leave=1):
            group.split = "test"
        notes.append(
            "The data has no test split: half of its validation split is set apart as test, which "
            "the search never sees."
        )
    elif "test" not in present:
        cut("train", "test", for_test, leave=2)
        if "train" in present:
            notes.append("The data has no test split: it is cut from train.")
    if "validation" not in present:
        cut("train", "validation", for_validation / (for_train + for_validation), leave=1)
        if "train" in present or "test" in present:
            notes.append("The data has no validation split: it is cut from train.")


def _choose(groups: list[_Group], share: float, leave: int) -> list[_Group]:
    """Choose a share of the groups, in their order, stratified by the largest remainder.

    Every class gives at least one group and keeps at least ``leave``, where it has enough.
    """
    classes: dict[int, list[_Group]] = defaultdict(list)
    for group in groups:
        classes[group.label].append(group)
    spare = {label: max(0, len(members) - leave) for label, members in classes.items()}
    take = {
        label: min(spare[label], max(1, int(len(members) * share)))
        for label, members in classes.items()
    }
    missing = round(len(groups) * share) - sum(take.values())
    remainders = sorted(
        classes, key=lambda label: (take[label] - len(classes[label]) * share, label)
    )
    for label in remainders:
        if missing > 0 and take[label] < spare[label]:
            take[label] += 1
            missing -= 1
    return [group for label, members in classes.items() for group in members[: take[label]]]


def _check_coverage(groups: list[_Group], titles: list[str], notes: list[str]) -> None:
    for split in reversed(STRICTEST_FIRST):
        covered = {group.label for group in groups if group.split == split}
        absent = [title for label, title in enumerate(titles) if label not in covered]
        if absent and split == "train":
            raise DataError(
                f"The class {absent[0]!r} has no image to train on: all of them are in the "
                "validation or test split of the data; add some to train."
            )
        if not covered:
            raise DataError(
                f"No image is left for the {split} split, which the data does not give: every "
                "class has one distinct image to train on; add some, or give that split."
            )
        if absent:
            listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            notes.append(
                f"The {split} split has no image of {plural(len(absent), 'class')}: {listed}."
            )
