"""Images that crash or hang the library that decodes them."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from automl_tl.modelfile import ModelFacts
from automl_tl.types import Head
from tests.commandline import tree
from tests.conftest import CLASSES
from tests.faults.conftest import SEARCH, facts, wait_until
from tests.models.conftest import linear_onnx

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from tests.commandline import CommandLine
    from tests.faults.conftest import Faults

DECODING = "automl_tl.data.decoding"
BUG = """
import ctypes, os
from PIL.PngImagePlugin import PngImageFile

load = PngImageFile.load


def faulty(self):
    pixels = load(self)
    if self.text.get("bug") == "crash":
        ctypes.string_at(0)
    once = os.path.join(os.environ["FAULTS"], "once")
    if self.text.get("bug") == "hang" and not os.path.exists(once):
        open(once, "w").close()
        ctypes.PyDLL(None).sleep(3600)
    return pixels


PngImageFile.load = faulty
"""


@pytest.fixture
def data(tmp_path: Path, photos: Path, faults: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The photos, and a Python whose libpng has a bug that a text in an image sets off."""
    (tmp_path / "patched").mkdir()
    (tmp_path / "patched" / "sitecustomize.py").write_text(BUG)
    path = (str(tmp_path / "patched"), os.environ["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return shutil.copytree(photos, tmp_path / "photos")


def mark(image: Path, bug: str) -> None:
    text = PngInfo()
    text.add_text("bug", bug)
    Image.open(image).save(image, pnginfo=text)


def test_an_image_that_crashes_its_decoder_is_named_and_left_out(
    data: Path, cli: CommandLine
) -> None:
    for name in ("circle/003.png", "cross/011.png"):
        mark(data / name, "crash")
    process = cli.start("search", str(data), *SEARCH, "--trials", "1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    crashed = "crashed its decoder (killed by SIGSEGV)"
    named = f"circle/003.png ({crashed}); cross/011.png ({crashed})."
    assert f"2 images are left out: {named}" in err
    assert facts(cli)["data"]["images"] == 120
    assert facts(cli)["state"]["complete"] == 1


def test_a_crash_costs_an_image_in_data_check_predict_and_evaluate(
    data: Path, cli: CommandLine, tmp_path: Path
) -> None:
    mark(data / "cross" / "011.png", "crash")
    crashed = "crashed its decoder (killed by SIGSEGV)"
    checked = json.loads(cli.run("data", "check", str(data), "--json"))
    assert checked["broken"] == [{"name": "cross/011.png", "reason": crashed}]
    assert checked["good"] == 119
    model = linear_onnx(np.zeros((8 * 8 * 3, 3), np.float32), 8)
    told = ModelFacts("torch/tiny", 8, "squash", CLASSES, Head(classes=3), 0)
    helper.set_model_props(model, told.metadata())
    onnx.save_model(model, tmp_path / "m.onnx")
    evaluated = json.loads(cli.run("evaluate", "m.onnx", str(data), "--json"))
    assert evaluated["broken"] == checked["broken"]
    assert evaluated["n"] == 119
    predicted = json.loads(cli.run("predict", "m.onnx", str(data / "cross"), "--json"))
    assert [row["error"] for row in predicted] == [None] * 11 + [crashed] + [None] * 28
    alone = str(data / "cross" / "011.png")
    assert cli.run("predict", "m.onnx", alone, code=2) == f"Error: {alone}: {crashed}.\n"


@pytest.mark.slow
def test_an_image_that_hangs_its_decoder_ends_with_the_time(data: Path, cli: CommandLine) -> None:
    mark(data / "circle" / "003.png", "hang")
    started = time.monotonic()
    process = cli.start("search", str(data), *SEARCH, "--time", "6s")
    wait_until(process, lambda: bool(_decoders(process)), "images are decoded")
    below = tree(process)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 40
    assert process.returncode == 2
    assert "The time was up after decoding" in err and "of 120 images" in err
    assert not psutil.wait_procs(below, timeout=10)[1], "something outlived the search"


@pytest.mark.slow
def test_a_killed_decoding_is_started_again(data: Path, cli: CommandLine, faults: Faults) -> None:
    mark(data / "circle" / "003.png", "hang")
    process = cli.start("search", str(data), *SEARCH, "--trials", "1")
    wait_until(process, lambda: bool(_decoders(process)), "images are decoded")
    wait_until(process, (faults.folder / "once").exists, "it hangs")
    _decoders(process)[0].kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "left out" not in err
    assert facts(cli)["data"]["images"] == 120


def _decoders(process: Popen[str]) -> list[psutil.Process]:
    return [one for one in tree(process) if DECODING in " ".join(one.cmdline())]
