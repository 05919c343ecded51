"""Facts about a data set, near-duplicates and the built-in digits."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_tl.data import decode, digits, near_duplicates
from automl_tl.data.check import Look, check_data
from automl_tl.data.sources import folder
from automl_tl.errors import DataError, ImageError

WriteImage = Callable[..., Path]


def scene(seed: int, side: int = 96) -> Image.Image:
    """A smooth random picture, so that compressing it changes little."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes with every kind of trouble."""
    root = tmp_path / "trouble"
    for label, count in (("a", 30), ("b", 12), ("c", 8)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            scene(ord(label) * 1000 + number).save(root / label / f"{number:02d}.png")
    shutil.copy(root / "a/00.png", root / "a/copy.png")
    shutil.copy(root / "a/01.png", root / "b/conflict.png")
    for number in range(2, 12):
        Image.open(root / f"a/{number:02d}.png").save(root / f"a/{number:02d}.jpg", quality=70)
    (root / "c/text.jpg").write_text("no image")
    (root / "c/empty.jpg").touch()
    return root


def test_facts(data: Path) -> None:
    steps: list[tuple[int, int]] = []
    facts = check_data(folder(data), lambda done, total: steps.append((done, total)))
    json.dumps(facts, allow_nan=False)
    assert steps == [(done, 64) for done in range(1, 65)]
    assert (facts["name"], facts["images"], facts["good"]) == ("trouble", 64, 62)
    assert facts["classes"][2] == {"name": "c", "images": 10, "good": 8, "splits": {}}
    assert facts["broken"] == [
        {"name": "c/empty.jpg", "reason": "empty file"},
        {"name": "c/text.jpg", "reason": "not an image (text)"},
    ]
    assert facts["formats"] == {"PNG": 52, "JPEG": 10}
    assert facts["dimensions"]["width"] == {"min": 96, "median": 96, "max": 96}
    assert facts["duplicates"] == [["a/00.png", "a/copy.png"], ["a/01.png", "b/conflict.png"]]
    assert facts["label_conflicts"] == [
        [{"name": "a/01.png", "class": "a"}, {"name": "b/conflict.png", "class": "b"}]
    ]
    assert facts["imbalance"] == round(41 / 8, 2)
    assert facts["problem"] is None
    assert sum(facts["splits"].values()) == 60
    for word in ("sound images", "different classes", "near-identical", "balanced_accuracy", "'c'"):
        assert any(word in sentence for sentence in facts["advice"]), word


def test_copies_are_decoded_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    genuine = decode.decode_sizes
    monkeypatch.setattr(
        decode, "decode_sizes", lambda *given: decoded.append(given[0]) or genuine(*given)
    )
    look = Look().start()
    for item in folder(data).items:
        with suppress(ImageError):
            look(item.path)
    assert len(decoded) == len(set(decoded)) == 62


def test_near_duplicates_are_the_recompressed_images(data: Path) -> None:
    near = check_data(folder(data))["near_duplicates"]
    assert near["count"] == len(near["pairs"]) > 0
    assert near["count"] + near["same_split"] == 10
    assert not near["truncated"]
    for pair in near["pairs"]:
        first, second = pair["names"]
        assert first.removesuffix(".jpg") == second.removesuffix(".png")
        assert pair["splits"][0] != pair["splits"][1]
        assert pair["classes"] == ["a", "a"]


def test_a_search_counts_the_same_near_duplicates(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("automl_tl_torch", reason="the PyTorch plugin is not installed")
    from automl_tl import Study

    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))
    near = check_data(folder(data))["near_duplicates"]["count"]
    said: list[str] = []
    Study.create(
        tmp_path / "study",
        data,
        backbones=["torch/tiny"],
        listener=lambda event: said.append(event.get("text", "")),
    )
    told = " ".join(said)
    assert f"{near} pairs of near-identical images are in different splits" in told
    assert f"`automl-tl data check {data}` lists them" in told
    assert "1 file is an exact copy of another, kept in its split." in told


def test_what_a_search_could_not_use_is_a_fact_too(tmp_path: Path, write_image: WriteImage) -> None:
    for number in range(5):
        write_image(tmp_path / "d" / "a" / f"{number}", number)
    (tmp_path / "d" / "b").mkdir()
    (tmp_path / "d" / "b" / "x.jpg").write_text("no image")
    facts = check_data(folder(tmp_path / "d"))
    assert facts["splits"] is None
    assert "'b' needs at least 3" in facts["problem"]
    assert "but has 0 in 1 file: a search refuses such data" in facts["problem"]
    assert facts["advice"][0] == facts["problem"]
    assert facts["imbalance"] is None
    (tmp_path / "e").mkdir()
    shutil.copytree(tmp_path / "d" / "b", tmp_path / "e" / "a")
    shutil.copytree(tmp_path / "d" / "b", tmp_path / "e" / "b")
    facts = check_data(folder(tmp_path / "e"))
    assert facts["good"] == 0 and facts["dimensions"] is None


def test_pairs_are_all_that_are_near() -> None:
    random = np.random.default_rng(0)
    grids = random.integers(0, 256, (400, 8, 9)).astype(np.uint8)
    for row in range(100):
        noise = random.integers(-3, 4, (8, 9))
        grids[300 + row] = np.clip(grids[row].astype(int) + noise, 0, 255)
    grids[50:60] = 7  # no contrast
    pairs, truncated = near_duplicates.find_pairs(grids)
    steps = (grids[:, :, 1:] > grids[:, :, :-1]).reshape(400, 64)
    flat = grids.reshape(400, 72).astype(float)
    flat -= flat.mean(axis=1, keepdims=True)
    expected = [
        [first, second]
        for first in range(400)
        for second in range(first + 1, 400)
        if np.ptp(grids[first])
        and np.ptp(grids[second])
        and (steps[first] != steps[second]).sum() <= 4
        and np.abs(flat[first] - flat[second]).mean() <= near_duplicates.MAX_DIFFERENCE
    ]
    assert pairs.tolist() == expected
    assert len(expected) >= 80 and not truncated
    assert near_duplicates.find_pairs(np.repeat(grids[:1], 10, axis=0), neighbours=3)[1]
    assert near_duplicates.find_pairs(grids[:0])[0].shape == (0, 2)


def test_a_crowd_that_looks_alike_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images of a film, say: some partners of each, and all pairs of whoever has few."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 8, 9))
    crowd = np.clip(frames[0] + random.integers(-1, 2, (1500, 8, 9)), 0, 255).astype(np.uint8)
    few = np.clip(frames[1] + random.integers(-1, 2, (5, 8, 9)), 0, 255).astype(np.uint8)
    monkeypatch.setattr(near_duplicates, "_MAX_PAIRS", 30_000)
    tracemalloc.start()
    pairs, truncated = near_duplicates.find_pairs(np.concatenate([crowd, few]))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    assert truncated
    assert len(pairs) <= 5 * 30_000
    assert set(pairs.ravel().tolist()) == set(range(1505)), "everybody has a partner"
    assert (pairs[:, 0] >= 1500).sum() == 10


def test_digits_are_scikit_learns_scans(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    index = digits.load(tmp_path)
    assert (index.name, index.source) == ("digits", "digits")
    assert index.classes == tuple("0123456789")
    known = load_digits()
    assert Counter(item.label for item in index.items) == Counter(known.target.tolist())
    for item in index.items[::100]:
        number = int(item.path.stem)
        scan = np.asarray(Image.open(item.path)).astype(float) * 16 / 255
        assert np.abs(scan - known.images[number]).max() < 0.05
        assert known.target[number] == item.label
    stamps = {item.path: item.path.stat().st_mtime_ns for item in index.items}
    assert {
        item.path: item.path.stat().st_mtime_ns for item in digits.load(tmp_path).items
    } == stamps
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["digits-1"]


def test_digits_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "datasets").write_text("a file is in the way")
    with pytest.raises(DataError, match="cannot be written"):
        digits.load(tmp_path)
