"""Small image files and folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """Write a noise image that the seed decides; creates folders."""

    def write(path: Path, seed: int, size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path, "PNG")
        return path

    return write


@pytest.fixture
def classes_folder(tmp_path: Path, write_image: WriteImage) -> Path:
    """Two classes of four images each."""
    root = tmp_path / "pets"
    for number in range(8):
        write_image(root / ("cat" if number < 4 else "dog") / f"{number}.png", number)
    return root
