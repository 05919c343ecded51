"""The model card that lies beside an export."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_tl import card
from automl_tl.predict import open_model
from tests.models.linear import SUFFIXES, needs_litert


def test_the_card_tells_what_matters(export):
    counts = {c: {"train": 30 + i, "validation": 4} for i, c in enumerate(("blue", "green", "red"))}
    text = export(
        test={"accuracy": 0.9, "interval": [0.83, 0.94], "n": 121},
        extra={"trials": 20, "data": {"source": "/home/jane/photos", "counts": counts}},
        versions={"torch": "2.15.0"},
    ).card.read_text(encoding="utf-8")
    for part in (
        "# model.onnx",
        "| 1 | green | 31 |",
        "90.0 % (95 % interval 83.0 to 94.0 %)",
        "best of 20 trials",
        "- Source: photos\n",
        "- Train: 93 images\n- Validation: 12 images\n",
        "| learning_rate | 0.001234 |",
        "| torch (version) | 2.15.0 |",
        "| Weights | BSD-3-Clause |",
        "256 of 256 images get the same class",
        "## Intended use and limits",
    ):
        assert part in text, part
    assert "No test figures" not in text
    assert "jane" not in text


@pytest.mark.parametrize(
    ("at", "extra", "told"),
    [
        (154, {"layers": 154}, "all layers are frozen (fine_tune_at = 154 = number of layers)"),
        (100, {"layers": 154}, "from layer 100 of 154 on (fine_tune_at = 100)"),
        (0, {"layers": 154}, "all (fine_tune_at = 0)"),
        (100, {}, "from layer 100 on (fine_tune_at = 100)"),
    ],
)
def test_the_card_says_which_layers_were_tuned(export, at, extra, told):
    assert told in export(fine_tune_at=at, extra=extra).card.read_text(encoding="utf-8")


def test_the_card_says_when_there_is_no_test(export):
    text = export().card.read_text(encoding="utf-8")
    assert "No test figures were computed" in text
    assert "not computed" in text


def test_names_cannot_break_the_card(export, tmp_path):
    classes = ("a|b", "# `x`\n\n## New\r\u2028section", "<script>*__init__*\ud800")
    text = export("out/``` `model.onnx", classes=classes).card.read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if re.match(r"\| \d \| ", line)]
    assert table == [
        r"| 0 | a\|b |",
        r"| 1 | # \`x\` ## New section |".replace("#", r"\#"),
        "| 2 | \\<script\\>\\*\\_\\_init\\_\\_\\*\ufffd |",
    ]
    assert text.count("```") == 8
    assert text.splitlines()[0] == card.MARK


def test_escape_keeps_ordinary_names_readable():
    assert card.escape("fine_tune_at") == "fine_tune_at"
    assert card.escape("Löwenzahn 蒲公英 می‌خواهم 1.5") == "Löwenzahn 蒲公英 می‌خواهم 1.5"
    assert card.escape("_x_") == r"\_x\_"


@pytest.mark.parametrize(
    ("format", "resize"),
    [
        ("onnx", "squash"),
        ("onnx", "crop"),
        ("onnx", "pad"),
        pytest.param("litert", "squash", marks=needs_litert),
    ],
)
def test_the_snippet_of_the_card_runs_alone(
    export, tmp_path, run_without_frameworks, monkeypatch, format, resize
):
    report = export(f"out/it's a model{SUFFIXES[format]}", format, resize=resize)
    [code] = re.findall(r"```python\n(.*?)```", report.card.read_text(encoding="utf-8"), re.S)
    alone = 'BLOCKED.add("automl_tl")\n'
    monkeypatch.chdir(report.path.parent)
    rng = np.random.default_rng(5)
    noise = rng.integers(256, size=(40, 60, 4), dtype=np.uint8)
    Image.fromarray(noise[..., :3]).save("turned.jpg", exif=turned(), quality=95)
    Image.fromarray(noise).save("alpha.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save("deep.png")
    Image.fromarray(noise[..., 0]).convert("P").save("palette.gif")
    Image.fromarray(noise[..., :3]).resize((600, 400)).convert("CMYK").save("cmyk.jpg")
    images = [Path(n) for n in ("turned.jpg", "alpha.png", "deep.png", "palette.gif", "cmyk.jpg")]
    with open_model(report.path) as predictor:
        ours = list(predictor.classify(images))
    for prediction in ours:
        printed = run_without_frameworks(alone + code, prediction.path).splitlines()
        share, _, name = printed[0].partition(" ")
        assert name.strip("'") == prediction.ranked[0][0], prediction.path
        assert float(share) == pytest.approx(prediction.ranked[0][1], abs=0.01), prediction.path


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
