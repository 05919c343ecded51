"""A machine that cannot decode what a study was begun with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image, features

from tests.commandline import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_WEBP = """
import PIL.Image

def init(real=PIL.Image.init):
    found = real()
    PIL.Image.OPEN.pop("WEBP", None)
    return found

PIL.Image.init = init
"""
FROZEN = ("--backbone", "torch/tiny", "--study", "s", "--set", "depth=0", "--set", "epochs=2")


@pytest.fixture
def mixed(tmp_path: Path, photos: Path) -> Path:
    """The photographs, half of them as WebP."""
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        target = tmp_path / "mixed" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(target.with_suffix(".webp") if number % 2 else target, lossless=True)
    return tmp_path / "mixed"


@pytest.mark.skipif(not features.check("webp"), reason="Pillow has no WebP here")
def test_images_that_can_no_longer_be_decoded_end_a_search_in_one_sentence(
    mixed: Path, tmp_path: Path
) -> None:
    """They were trained on as black squares."""
    cli = CommandLine(tmp_path, tmp_path / "cache")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_WEBP)
    poorer = ("env", f"PYTHONPATH={tmp_path}")
    cli.run("search", str(mixed), *FROZEN, "--trials", "2")
    cli.run("cache", "clear")
    for _ in range(2):  # what the first one decoded is not believed by the second
        process = cli.under(poorer, "resume", "s", "--trials", "3")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert "cannot be decoded here" in err
        assert ".webp" in err
    assert cli.show("s")["state"]["complete"] == 2
    cli.run("resume", "s", "--trials", "3")
    assert cli.show("s")["state"]["complete"] == 3
