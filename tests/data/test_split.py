"""The split: honest, stratified, repeatable."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given as quantify
from hypothesis import settings
from hypothesis import strategies as st

from automl_tl.data.split import assign
from automl_tl.errors import DataError

if TYPE_CHECKING:
    from automl_tl.types import Split


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def numbers(*counts: int) -> tuple[list[int], list[str], list[Split | None]]:
    """Distinct images: so many of each class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return labels, [digest(row) for row in range(len(labels))], [None] * len(labels)


def table(labels: list[int], splits: tuple[Split | None, ...]) -> Counter[tuple[int, Split | None]]:
    return Counter(zip(labels, splits, strict=True))


def test_seventy_fifteen_fifteen_in_every_class() -> None:
    labels, hashes, given = numbers(1000, 200, 40)
    result = assign(labels, hashes, given, seed=0)
    assert result.notes == ()
    counts = table(labels, result.splits)
    assert [counts[label, "train"] for label in range(3)] == [700, 140, 28]
    assert [counts[label, "validation"] for label in range(3)] == [150, 30, 6]
    assert [counts[label, "test"] for label in range(3)] == [150, 30, 6]


def test_the_whole_keeps_its_shares_when_classes_are_small() -> None:
    labels, hashes, given = numbers(*[10] * 100)
    counts = Counter(assign(labels, hashes, given, seed=0).splits)
    assert counts == {"train": 700, "validation": 150, "test": 150}


def test_three_images_are_one_each() -> None:
    labels, hashes, given = numbers(3, 3, 50)
    counts = table(labels, assign(labels, hashes, given, seed=5).splits)
    for label in (0, 1):
        assert all(counts[label, split] == 1 for split in ("train", "validation", "test"))


def test_the_seed_decides_and_names_and_order_do_not() -> None:
    labels, hashes, given = numbers(50, 50)
    first = assign(labels, hashes, given, seed=1).splits
    assert assign(labels, hashes, given, seed=1).splits == first
    assert assign(labels, hashes, given, seed=2).splits != first
    backwards = assign(labels[::-1], hashes[::-1], given, seed=1).splits
    assert backwards[::-1] == first


def test_identical_images_stay_together() -> None:
    labels, hashes, given = numbers(60, 60)
    hashes[:20] = [hashes[0]] * 20
    splits = assign(labels, hashes, given, seed=0).splits
    assert len(set(splits[:20])) == 1
    assert None not in splits


def test_identical_images_with_different_labels_are_left_out_and_named() -> None:
    labels, hashes, given = numbers(20, 20)
    hashes[25] = hashes[26] = hashes[3]
    names = [f"image {row}" for row in range(40)]
    result = assign(labels, hashes, given, seed=0, names=names)
    assert [row for row, split in enumerate(result.splits) if split is None] == [3, 25, 26]
    assert "3 images" in result.notes[0] and "image 3 and image 25" in result.notes[0]


def test_broken_images_are_left_out() -> None:
    labels, hashes, given = numbers(20, 20)
    hashes[4] = hashes[30] = ""
    splits = assign(labels, hashes, given, seed=0).splits
    assert [row for row, split in enumerate(splits) if split is None] == [4, 30]


def test_given_splits_are_kept_and_copies_stay_where_they_are_strictest() -> None:
    labels, hashes, given = numbers(12, 12)
    given[:] = (["train"] * 6 + ["validation"] * 3 + ["test"] * 3) * 2
    hashes[0] = hashes[9]  # train and test
    hashes[1] = hashes[6]  # train and validation
    hashes[7] = hashes[10]  # validation and test
    result = assign(labels, hashes, given, seed=0)
    assert [row for row in range(24) if result.splits[row] is None] == [0, 1, 7]
    assert all(split in (None, own) for split, own in zip(result.splits, given, strict=True))
    assert len(result.notes) == 1 and "3 exact copies" in result.notes[0]


def test_validation_is_cut_from_train() -> None:
    labels, hashes, given = numbers(100, 100)
    given[:] = (["train"] * 85 + ["test"] * 15) * 2
    result = assign(labels, hashes, given, seed=0)
    assert table(labels, result.splits) == {
        (label, split): count
        for label in (0, 1)
        for split, count in (("train", 70), ("validation", 15), ("test", 15))
    }
    assert all(result.splits[row] == "test" for row in range(200) if given[row] == "test")
    assert "validation" in result.notes[0]


def test_images_in_no_split_count_as_train_and_a_note_says_so() -> None:
    labels, hashes, given = numbers(60, 60)
    given[:] = (["train"] * 20 + [None] * 20 + ["test"] * 20) * 2
    result = assign(labels, hashes, given, seed=0)
    assert "40 images are in no split of the data and count as train." in result.notes
    rest = {result.splits[row] for row in range(120) if given[row] is None}
    assert rest == {"train", "validation"}
    given[:] = [None] * 120
    assert assign(labels, hashes, given, seed=0).notes == ()


def test_train_alone_is_cut_in_three_and_a_test_comes_from_validation() -> None:
    labels, hashes, given = numbers(100, 100)
    given[:] = ["train"] * 200
    counts = Counter(assign(labels, hashes, given, seed=0).splits)
    assert counts == {"train": 140, "validation": 30, "test": 30}
    given[:] = (["train"] * 80 + ["validation"] * 20) * 2
    result = assign(labels, hashes, given, seed=0)
    counts = Counter(result.splits)
    assert counts == {"train": 160, "validation": 20, "test": 20}
    assert all(result.splits[row] == "train" for row in range(200) if given[row] == "train")
    assert "half of its validation split" in result.notes[0]


def test_a_test_split_covers_classes_that_validation_cannot_spare() -> None:
    labels, hashes, given = numbers(20, 20)
    given[:] = ["train"] * 19 + ["validation"] + ["train"] * 10 + ["validation"] * 10
    counts = table(labels, assign(labels, hashes, given, seed=0).splits)
    assert all(counts[label, split] for label in (0, 1) for split in ("validation", "test"))


def test_images_without_a_split_count_as_train_beside_given_ones() -> None:
    labels, hashes, given = numbers(40, 40)
    given[:6] = given[40:46] = ["test"] * 6
    splits = assign(labels, hashes, given, seed=0).splits
    assert Counter(splits)["test"] == 12
    assert Counter(splits)["validation"] == round(68 * 15 / 85)


def test_too_few_images_name_the_class() -> None:
    labels, hashes, given = numbers(10, 4, 10)
    hashes[11] = hashes[10]
    hashes[12] = ""
    with pytest.raises(DataError, match=r"'cat' needs at least 3 .* has 2 in 4 files"):
        assign(labels, hashes, given, seed=0, classes=["ant", "cat", "dog"])
    labels, hashes, given = numbers(10, 10)
    with pytest.raises(DataError, match="'dog' needs"):
        assign(labels, hashes, given, seed=0, classes=["ant", "cat", "dog"])


def test_a_class_without_training_images_is_an_error() -> None:
    labels, hashes, given = numbers(10, 10)
    given[:] = ["train"] * 10 + ["test"] * 10
    with pytest.raises(DataError, match="'1' has no image to train on"):
        assign(labels, hashes, given, seed=0)


def test_given_splits_that_leave_nothing_to_validate_on_are_an_error() -> None:
    labels, hashes, given = numbers(3, 3)
    given[:] = ["train", "test", "test"] * 2
    with pytest.raises(DataError, match="No image is left for the validation split"):
        assign(labels, hashes, given, seed=0)
    given[1] = "train"
    assert "validation" in assign(labels, hashes, given, seed=0).splits


SPLITS = st.sampled_from([None, "train", "validation", "test"])
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), SPLITS), max_size=120)


@settings(max_examples=200, deadline=None)
@quantify(ROWS, st.integers(0, 3))
def test_never_a_leak(rows: list[tuple[int, int, Split | None]], seed: int) -> None:
    labels = [row[0] for row in rows]
    hashes = [digest(row[1]) if row[1] else "" for row in rows]
    given = [row[2] for row in rows]
    try:
        splits = assign(labels, hashes, given, seed, classes=["a", "b", "c"]).splits
    except DataError:
        return
    sides: dict[str, set[str]] = {}
    for label, name, own, split in zip(labels, hashes, given, splits, strict=True):
        if split:
            assert name
            assert own != "test" or split == "test"
            sides.setdefault(name, set()).add(split)
            assert {labels[r] for r in range(len(rows)) if hashes[r] == name} == {label}
    assert all(len(found) == 1 for found in sides.values())
    assert {"train", "validation", "test"} <= set(splits)


def test_many_images_take_linear_time() -> None:
    def seconds(images: int) -> float:
        labels, hashes, given = numbers(*[images // 100] * 100)
        started = time.process_time()
        assign(labels, hashes, given, seed=0)
        return time.process_time() - started

    seconds(2_000)
    assert seconds(80_000) < 16 * seconds(10_000) + 0.5
