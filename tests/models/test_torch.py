"""The whole way with the real PyTorch backend: train, export to every format, prove, predict."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from automl_tl.errors import ExportError
from automl_tl.export import export_model
from automl_tl.host import BackendHost
from automl_tl.identify import identify
from automl_tl.modelfile import ModelFacts
from automl_tl.plugins import get_plugins
from automl_tl.predict import open_model
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or "torch" not in get_plugins().backends,
    reason="the PyTorch plugin is not installed",
)
SIZE = 16
CLASSES = ("blue", "green", "red")


class Silent:
    def epoch(self, report): ...

    def step(self, what, done, total): ...

    def need(self, source): ...


@pytest.fixture(scope="module")
def host():
    with BackendHost("torch", device="cpu", threads=2) as host:
        yield host


@pytest.fixture(scope="module")
def images():
    """Noise of a little more of one colour: uint8 (90, S, S, 3), labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = rng.integers(120, size=(90, SIZE, SIZE, 3))
    pixels[np.arange(90), :, :, 2 - labels] += 100
    return pixels.astype(np.uint8), labels


@pytest.fixture(scope="module")
def trained(host, images, tmp_path_factory):
    """A trained model's file and its facts."""
    folder = tmp_path_factory.mktemp("trained")
    pixels, labels = images
    np.save(folder / "pixels.npy", pixels)
    backbone = get_plugins().backbone("torch/tiny")
    network = NetworkSpec(backbone.key, SIZE, backbone.pretrained.path(), "synthetic")
    info = host.describe(network)
    source = Source(folder / "pixels.npy", cut=0)
    job = TrainJob(
        network=network,
        info=info,
        head=Head(3),
        fine_tune_at=0,
        warmup=PhaseSpec(2, 1e-2),
        fine_tuning=PhaseSpec(1, 1e-4),
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        batch_size=16,
        label_smoothing=0.0,
        class_weights=None,
        seed=0,
        train_labels=labels,
        head_train=source,
        head_validation=source,
        tune_train=(source,),
        tune_validation=source,
    )
    trainer = host.trainer(job)
    trainer.run(Silent())
    facts = ModelFacts(backbone.key, SIZE, "squash", CLASSES, Head(3), 0, "colours", 1)
    trainer.save(folder / "model.safetensors", facts.metadata())
    return folder / "model.safetensors", facts


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_an_export_agrees_with_the_trained_model(format, host, trained, images, tmp_path):
    model, facts = trained
    suffixes = get_plugins().backend("torch").formats
    target = tmp_path / f"out{suffixes[format]}"
    report = export_model(model, format, target, host, suffixes, *images, facts=facts)
    assert (report.runtime, report.images) == ("torch", 90)
    assert report.agreement + report.ties == 90
    assert report.difference <= 1e-3 * report.scale
    assert sorted(p.name for p in tmp_path.iterdir()) == [target.name, f"{target.name}.md"]
    assert identify(target).facts.metadata() == facts.metadata()


def test_the_snippet_of_the_card_runs_alone(host, trained, images, tmp_path, photos):
    model, facts = trained
    suffixes = get_plugins().backend("torch").formats
    target = tmp_path / "out.pt2"
    report = export_model(model, "torch", target, host, suffixes, *images, facts=facts)
    [code] = re.findall(r"```python\n(.*?)```", report.card.read_text(encoding="utf-8"), re.S)
    image = photos / "red" / "0.png"
    block = "import sys\nsys.modules['automl_tl'] = None\n"
    command = [sys.executable, "-c", block + code, image]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open_model(target, device="cpu") as predictor:
        [ours] = predictor.classify([image])
    share, _, name = done.stdout.splitlines()[0].partition(" ")
    assert name.strip("'") == ours.ranked[0][0]
    assert float(share) == pytest.approx(ours.ranked[0][1], abs=0.01)


def test_predict_runs_other_formats_in_the_backend(trained, images, host, photos):
    model, _ = trained
    reference = host.load(model).logits(images[0])
    with open_model(model, device="cpu") as predictor:
        assert predictor.runtime == "torch"
        assert np.array_equal(predictor.logits(images[0], batch_size=64), reference)
        assert [p.error for p in predictor.classify([photos])] == [None] * 9


def test_a_missing_model_leaves_nothing(host, trained, images, tmp_path):
    model, facts = trained
    with pytest.raises(ExportError, match="gone"):
        export_model(
            model.with_name("gone.safetensors"),
            "onnx",
            tmp_path / "out.onnx",
            host,
            get_plugins().backend("torch").formats,
            *images,
            facts=facts,
        )
    assert not list(tmp_path.iterdir())


def test_what_pytorch_exports_runs_without_it(
    host, trained, images, tmp_path, photos, run_without_frameworks
):
    model, facts = trained
    suffixes = get_plugins().backend("torch").formats
    target = tmp_path / "out.onnx"
    report = export_model(model, "onnx", target, host, suffixes, *images, facts=facts)
    assert (report.runtime, report.agreement + report.ties) == ("onnxruntime", 90)
    assert report.accuracy > 0.6, "it learned to tell colours"
    reference = host.load(model).logits(images[0])
    code = (
        "from automl_tl.predict import open_model\n"
        "with open_model(sys.argv[1]) as predictor:\n"
        "    for p in predictor.classify(sys.argv[2:]):\n"
        "        print(p.path.parent.name, p.ranked[0][0], p.error)\n"
    )
    printed = run_without_frameworks(code, target, photos)
    lines = [line.split() for line in printed.splitlines()]
    assert len(lines) == 9
    with open_model(target) as predictor:
        logits = predictor.logits(images[0], batch_size=7)
        assert np.abs(logits - reference).max() <= 1e-3 * np.abs(reference).max()
        ours = [p.ranked[0][0] for p in predictor.classify([photos])]
    assert [line[1] for line in lines] == ours
