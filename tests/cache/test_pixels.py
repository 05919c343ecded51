"""Decode once: what is stored, when it is decoded, what happens when it goes wrong."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from automl_tl.cache import decoding, pixels
from automl_tl.cache.pixels import prepare
from automl_tl.cache.store import Store
from automl_tl.data import decode
from automl_tl.data.sources import folder
from automl_tl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of different shapes, and two files that are none."""
    random = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "data" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shape = (30 + number, 20 + 2 * number, 3)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(place / f"{number:02d}.png")
    (tmp_path / "data" / "a" / "05-text.jpg").write_text("no image")
    (tmp_path / "data" / "b" / "99-empty.jpg").touch()
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", max_bytes=10**9)


def partials(store: Store) -> list[Path]:
    place = store.root / "partial"
    return list(place.iterdir()) if place.exists() else []


def test_rows_are_what_the_decoder_says(data: Path, store: Store) -> None:
    index = folder(data)
    found = prepare(index, [16, 24], "crop", store)
    assert found.decoded == 12
    assert found.resize == "crop"
    assert {index.items[row].name: reason for row, reason in found.broken.items()} == {
        "a/05-text.jpg": "not an image (text)",
        "b/99-empty.jpg": "empty file",
    }
    for size in (16, 24):
        array = np.load(found.paths[size], mmap_mode="r")
        assert array.shape == (14, size, size, 3) and array.dtype == np.uint8
        for row, item in enumerate(index.items):
            if row in found.broken:
                assert not array[row].any()
            else:
                assert np.array_equal(
                    array[row], decode.decode(item.path.read_bytes(), size, "crop")
                )
    sides = [min(30 + number, 20 + 2 * number) for number in range(12)]
    assert found.median_side == round(float(np.median(sides)))
    assert len(set(found.hashes)) == 14


def test_nothing_is_decoded_twice(
    data: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    genuine = decoding.decode_all

    def counted(images: Iterable[decoding.Image], target: decoding.Target, look: object) -> object:
        calls.append([*target.arrays])
        return genuine(images, target, look)

    monkeypatch.setattr(pixels, "decode_all", counted)
    first = prepare(folder(data), [16, 24], "squash", store)
    assert calls == [[16, 24]]
    again = prepare(folder(data), [24, 16], "squash", Store(store.root, 10**9))
    assert again.decoded == 0 and len(calls) == 1
    assert (again.broken, again.paths, again.median_side, again.hashes) == (
        first.broken,
        first.paths,
        first.median_side,
        first.hashes,
    )
    assert prepare(folder(data), [16, 32], "squash", store).decoded == 12
    assert calls[1:] == [[32]]
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    assert prepare(folder(moved), [16], "squash", store).decoded == 0
    assert prepare(folder(data), [16], "pad", store).decoded == 12


def test_copies_are_decoded_once(data: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (3, 7):
        shutil.copy(data / "b" / f"{number:02d}.png", data / "b" / f"{number}-again.png")
        shutil.copy(data / "b" / f"{number:02d}.png", data / "a" / f"{number}-elsewhere.png")
    shutil.copy(data / "a" / "05-text.jpg", data / "b" / "text-again.jpg")
    calls = []
    genuine = decoding.decode_all

    def counted(images: Iterable[decoding.Image], *rest: Any) -> object:
        images = list(images)
        calls.extend(image.digest for image in images)
        return genuine(images, *rest)

    monkeypatch.setattr(pixels, "decode_all", counted)
    index = folder(data)
    found = prepare(index, [16, 24], "squash", store)
    assert len(calls) == len(set(calls)) == 14
    assert found.decoded == 16
    assert [index.items[row].name for row in found.broken] == [
        "a/05-text.jpg",
        "b/99-empty.jpg",
        "b/text-again.jpg",
    ]
    for size in (16, 24):
        array = np.load(found.paths[size], mmap_mode="r")
        for row in set(range(len(index.items))) - set(found.broken):
            content = index.items[row].path.read_bytes()
            assert np.array_equal(array[row], decode.decode(content, size, "squash"))


def test_other_content_is_another_array(data: Path, store: Store) -> None:
    first = prepare(folder(data), [16], "squash", store)
    Image.new("RGB", (40, 40), "red").save(data / "a" / "00.png")
    second = prepare(folder(data), [16], "squash", store)
    assert second.decoded == 12
    assert second.dataset_hash != first.dataset_hash
    assert second.paths[16] != first.paths[16]


def test_a_file_that_changes_meanwhile_stops_it_and_stores_nothing(
    data: Path, store: Store
) -> None:
    def change(what: str, done: int, total: int) -> None:
        if (what, done) == ("reading", total):
            Image.new("RGB", (40, 40), "red").save(data / "b" / "11.png")

    with pytest.raises(DataError, match=r"11\.png changed"):
        prepare(folder(data), [16], "squash", store, change)
    assert not store.entries() and not partials(store)


def test_unreadable_files_are_broken(data: Path, store: Store) -> None:
    index = folder(data)
    (data / "a" / "00.png").unlink()
    (data / "a" / "02.png").unlink()
    (data / "a" / "02.png").mkdir()
    found = prepare(index, [16], "squash", store)
    reasons = {index.items[row].name: reason for row, reason in found.broken.items()}
    assert "No such file" in reasons["a/00.png"]
    assert reasons["a/02.png"] == "not a regular file"
    assert found.hashes[0] == ""
    assert prepare(index, [16], "squash", store).broken == found.broken


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_is_broken(data: Path, store: Store) -> None:
    (data / "a" / "00.png").chmod(0)
    found = prepare(folder(data), [16], "squash", store)
    assert "Permission denied" in found.broken[0]


def test_ctrl_c_leaves_nothing_half_done(data: Path, store: Store) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("decoding", 3):
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        prepare(folder(data), [16, 24], "squash", store, interrupt)
    assert not store.entries() and not partials(store)
    assert threading.active_count() == threads
    assert prepare(folder(data), [16, 24], "squash", store).decoded == 12


def test_progress_counts_every_image(data: Path, store: Store) -> None:
    steps: list[tuple[str, int, int]] = []
    prepare(folder(data), [16], "squash", store, lambda *step: steps.append(step), workers=3)
    # Where nothing is done for a second, the last step is said again: it may raise.
    said = [step for step in dict.fromkeys(steps) if step[1]]
    assert said == [(w, n, 14) for w in ("reading", "decoding") for n in range(1, 15)]
    steps.clear()
    prepare(folder(data), [16], "squash", store, lambda *step: steps.append(step))
    assert {what for what, _, _ in steps} == {"reading"}


def test_two_at_once_decode_once(data: Path, store: Store) -> None:
    counts: list[int] = []

    def work(sizes: list[int]) -> None:
        own = Store(store.root, 10**9)
        counts.append(prepare(folder(data), sizes, "squash", own).decoded)

    threads = [threading.Thread(target=work, args=(s,)) for s in ([16, 24], [24, 16])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(counts) == [0, 12]


def test_a_data_set_without_a_sound_image(tmp_path: Path, store: Store) -> None:
    for label in "ab":
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "x.jpg").write_text("no image")
    found = prepare(folder(tmp_path / "bad"), [16], "squash", store)
    assert (found.decoded, found.median_side, set(found.broken)) == (0, 0, {0, 1})
