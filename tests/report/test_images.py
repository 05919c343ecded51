from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from automl_tl.cache.store import Store
from automl_tl.report.images import SIDE, Images
from tests.report.conftest import Made, make

if TYPE_CHECKING:
    from pathlib import Path


def _open(url: str) -> Image.Image:
    head, _, body = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_thumbnails_come_from_the_pixel_cache(empty: Made) -> None:
    images = Images(empty.directory, empty.data, empty.store)
    url = images.thumbnail(3)
    assert url is not None
    assert _open(url).size == (SIDE, SIDE)
    assert images.problem is None


def test_thumbnails_come_from_the_files_when_the_cache_is_empty(tmp_path: Path) -> None:
    """One file has changed since: it is not shown."""
    made = make(tmp_path, classes=("a", "b"), images=5, picture=False)
    folder = tmp_path / "photos"
    names, hashes = [], []
    for row, label in enumerate(made.data.labels):
        name = f"{'ab'[label]}/{row:02d}.png"
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 20 * row, np.uint8)).save(file)
        names.append(name)
        hashes.append(hashlib.sha256(file.read_bytes()).hexdigest())
    order = sorted(range(len(names)), key=names.__getitem__)
    data = replace(
        made.data,
        names=tuple(names[i] for i in order),
        hashes=tuple(hashes[i] for i in order),
    )
    made.directory.config = replace(made.directory.config, data=str(folder))
    Image.new("RGB", (9, 9)).save(folder / data.names[2])
    images = Images(made.directory, data, Store(tmp_path / "other"))
    url = images.thumbnail(1)
    assert url is not None
    shade = np.asarray(_open(url).convert("L")).mean()
    assert abs(shade - 20 * int(data.names[1][2:4])) < 3
    assert images.thumbnail(2) is None


def test_without_cache_and_files_a_sentence_says_so(tmp_path: Path) -> None:
    made = make(tmp_path, picture=False)
    images = Images(made.directory, made.data, made.store)
    assert images.thumbnail(0) is None
    assert images.problem is not None
    assert images.problem.startswith("Pictures cannot be shown")
    made.directory.config = replace(made.directory.config, data="digits")
    other = Images(made.directory, made.data, made.store)
    assert other.problem is not None
    assert "no longer those of the study" in other.problem
