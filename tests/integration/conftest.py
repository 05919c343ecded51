"""A small data set of generated pictures, and the real command line over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

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


class CommandLine:
    """Runs ``automl-tl`` as a user does."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "AUTOML_TL_CACHE": str(cache), "NO_COLOR": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "automl_tl", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out if code == 0 else err

    def show(self, study: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run("show", study, "--json"))
        return facts


@pytest.fixture
def cli(tmp_path: Path, cache: Path) -> CommandLine:
    return CommandLine(tmp_path, cache)


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process and everything it started."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]
