"""The whole way with the real Keras backend: train, export to every format, prove, predict."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from automl_tl.export import export_model
from automl_tl.host import BackendHost
from automl_tl.identify import identify
from automl_tl.modelfile import ModelFacts
from automl_tl.plugins import get_plugins
from automl_tl.predict import open_model
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None or "keras" not in get_plugins().backends,
        reason="the Keras plugin is not installed",
    ),
]
SIZE = 24
CLASSES = ("blue", "green", "red")
RUNTIMES = {
    "onnx": "onnxruntime",
    "keras": "keras",
    "savedmodel": "keras",
    "litert": "LiteRT",
    "safetensors": "keras",
}


class Silent:
    def epoch(self, report): ...

    def step(self, what, done, total): ...

    def need(self, source): ...


@pytest.fixture(scope="module")
def host():
    with BackendHost("keras", device="cpu", threads=2) as host:
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
    backbone = get_plugins().backbone("keras/tiny")
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


def run_alone(code, folder, *arguments):
    """Run Python code in a new process in which automl-tl cannot be imported."""
    block = "import sys\nsys.modules['automl_tl'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("format", RUNTIMES)
def test_an_export_agrees_with_the_trained_model_and_runs_alone(
    format, host, trained, images, tmp_path, photos
):
    model, facts = trained
    suffixes = get_plugins().backend("keras").formats
    target = tmp_path / "out" / f"m{suffixes[format]}"
    report = export_model(model, format, target, host, suffixes, *images, facts=facts)
    assert (report.runtime, report.images) == (RUNTIMES[format], 90)
    assert report.agreement + report.ties == 90
    assert report.difference <= 1e-3 * report.scale
    assert report.accuracy > 0.6, "it learned to tell colours"
    assert sorted(p.name for p in target.parent.iterdir()) == [target.name, f"{target.name}.md"]
    assert identify(target).facts.metadata() == facts.metadata()
    image = photos / "red" / "0.png"
    with open_model(target, device="cpu") as predictor:
        [ours] = predictor.classify([image])
    if format == "safetensors":
        return
    [code] = re.findall(r"```python\n(.*?)```", report.card.read_text(encoding="utf-8"), re.S)
    share, _, name = run_alone(code, target.parent, image).splitlines()[0].partition(" ")
    assert name.strip("'") == ours.ranked[0][0]
    assert float(share) == pytest.approx(ours.ranked[0][1], abs=0.01)


def test_an_image_of_another_size_is_classified(trained, tmp_path):
    Image.new("RGB", (90, 50), "red").save(tmp_path / "red.jpg")
    with open_model(trained[0], device="cpu") as predictor:
        [found] = predictor.classify([tmp_path / "red.jpg"])
    assert found.error is None and len(found.ranked) == 3
