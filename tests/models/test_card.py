"""The model card: what it says of each class and of an ensemble, and its JavaScript, run."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from automl_tl import card, metrics
from automl_tl.deliver import with_classes
from automl_tl.export import ExportReport
from automl_tl.predict import open_model
from automl_tl.study_data import StudyData

NPM = shutil.which("npm")


@pytest.fixture
def data(facts):
    return StudyData(
        classes=facts.classes,
        names=tuple("abcdef"),
        labels=np.array([0, 0, 1, 1, 0, 1]),
        splits=(*("validation",) * 4, "test", "test"),
        hashes=("",) * 6,
        dataset_hash="",
        facts={},
    )


def render(facts, path, format="onnx"):
    report = ExportReport(
        path=path,
        card=path.with_name(f"{path.name}.md"),
        format=format,
        bytes=10,
        runtime="onnxruntime",
        images=9,
        difference=0.0,
        scale=1.0,
        agreement=9,
        ties=0,
        accuracy=1.0,
    )
    return card.render(facts, report)


def test_figures_of_each_class(facts, data, tmp_path):
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    known = with_classes(facts, data, {"validation": logits, "test": None})
    text = render(known, tmp_path / "m.onnx")
    low, high = metrics.interval(1, 2)
    assert "Of each class on the validation split" in text
    assert (
        f"| blue | 100.0 % | 50.0 % ({100 * low:.1f} to {100 * high:.1f} %) | 0.667 | 2 |" in text
    )
    assert "| red | - | - | - | 0 |" in text


def test_the_classes_are_measured_on_test_images_where_these_were_looked_at(facts, data, tmp_path):
    logits = {"validation": np.eye(3, dtype=np.float32)[[0, 1, 1, 1]], "test": np.eye(3)[[0, 1]]}
    assert with_classes(facts, data, logits).extra["by_class"]["split"] == "validation"
    tested = replace(facts, test={"accuracy": 1.0, "n": 2})
    known = with_classes(tested, data, logits)
    assert known.extra["by_class"]["split"] == "test"
    assert known.extra["by_class"]["rows"][0]["support"] == 1
    assert with_classes(tested, data, {"validation": None, "test": None}) == tested
    assert "Of each class" not in render(tested, tmp_path / "m.onnx")


def test_an_ensemble_names_its_members(facts, tmp_path):
    member = {
        "trial": 3,
        "weight": 1 / 3,
        "backbone": "keras/tiny",
        "fine_tune_at": 10,
        "layers": 36,
        "params": {"backbone": "keras/tiny", "learning_rate": 0.00123456, "optimizer": "sgd"},
        "validation": {},
    }
    other = {**member, "trial": 7, "weight": 2 / 3, "backbone": "torch/tiny"}
    extra = {"members": [member, other], "trials": 12}
    known = replace(facts, backbone="ensemble", trial=-1, extra=extra, test={"n": 30})
    text = render(known, tmp_path / "m.onnx")
    for part in (
        "weighted mean of those of 2 trials",
        "| Backbone | keras/tiny, torch/tiny |",
        "| 3 | 0.33 | keras/tiny | from layer 10 of 36 on (fine_tune_at = 10) | "
        "learning_rate 0.001235, optimizer sgd |",
        "chosen on the validation images, after 12 trials, so the validation figures flatter",
        "those of the members' mean by at most",
    ):
        assert part in text, part
    assert "trial -1" not in text


def test_only_onnx_files_run_in_javascript(facts, tmp_path):
    assert "onnxruntime-node" in render(facts, tmp_path / "m.onnx")
    assert "onnxruntime-node" not in render(facts, tmp_path / "m.safetensors", "safetensors")


def test_a_name_ends_neither_the_script_nor_the_fence(facts, tmp_path):
    text = render(facts, tmp_path / 'a"```<script>\u2028.onnx')
    scripts = text[text.index("In Node") :]
    assert scripts.count("```") == 4 and scripts.count("<script") == 1
    assert scripts.count(r"a\"\u0060\u0060\u0060\u003cscript>\u2028.onnx") == 2


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """A folder in which Node finds what the card's snippet imports."""
    folder = tmp_path_factory.mktemp("node")
    if not (NPM and shutil.which("node")):
        pytest.skip("Node and npm are not installed")
    # Without its script, which downloads CUDA's libraries, the package runs on the CPU.
    command = [NPM, "install", "--ignore-scripts", "--no-audit", "onnxruntime-node", "sharp"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-node: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_the_snippet_for_node_agrees_with_predict(node, write_onnx, facts, resize):
    model = write_onnx(resize=resize)
    text = render(replace(facts, resize=resize), model)
    [code] = re.findall(r"```js\n(.*?)```", text, re.S)
    shutil.copy(model, node / model.name)
    (node / "classify.mjs").write_text(code, encoding="utf-8")
    soft = np.linspace(40, 210, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    soft[:, :45, 0] //= 2
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(soft).save(node / "turned.jpg", exif=turned, quality=95)
    Image.fromarray(np.dstack([soft, soft[..., :1]])).save(node / "alpha.png")
    Image.fromarray(soft[..., 0]).save(node / "grey.png")
    Image.fromarray(soft[..., 0].astype(np.uint16) * 257).save(node / "deep.png")
    images = [node / name for name in ("turned.jpg", "alpha.png", "grey.png", "deep.png")]
    with open_model(model) as predictor:
        ours = list(predictor.classify(images))
    for prediction in ours:
        command = ["node", "classify.mjs", str(prediction.path)]
        done = subprocess.run(command, cwd=node, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        lines = [line.partition(" ") for line in done.stdout.splitlines()]
        found = {name.strip('"'): float(share) for share, _, name in lines}
        assert found == pytest.approx(dict(prediction.ranked), abs=0.03), prediction.path.name
