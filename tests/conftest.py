"""A small data set of generated pictures, and the real command line over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.commandline import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("circle", "cross", "square")


def _picture(kind: str, random: np.random.Generator) -> Image.Image:
    noise = random.integers(0, 60, (40, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in random.integers(6, 14, 2))
    size = int(random.integers(12, 20))
    colour = tuple(int(v) for v in random.integers(120, 255, 3))
    box = (x, y, x + size, y + size)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.line(box, fill=colour, width=5)
        draw.line((x, y + size, x + size, y), fill=colour, width=5)
    return image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    for kind in CLASSES:
        (root / kind).mkdir()
        for number in range(40):
            _picture(kind, random).save(root / kind / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(tmp_path: Path, cache: Path) -> CommandLine:
    return CommandLine(tmp_path, cache)
