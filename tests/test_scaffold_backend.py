"""The NumPy backend that ``plugin new`` writes: what it computes is right."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from automl_tl.augment import ViewParameters
from automl_tl.errors import FinishTraining, TrialError, WeightsError
from automl_tl.scaffold import new_plugin
from automl_tl.specs import Preprocess
from automl_tl.training.head import kernels
from automl_tl.training.heads import apply
from automl_tl.training.together import train_together
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from automl_tl.types import EpochReport

SIDE, IMAGES, CLASSES = 20, 24, 3
LABELS = np.arange(IMAGES) % CLASSES
HALVES = Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Listener:
    """Progress that keeps what it hears, and stops after so many epochs."""

    def __init__(self, most: int = 1000) -> None:
        self.reports: list[EpochReport] = []
        self._most = most

    def need(self, source: Source) -> None:
        assert source.path.is_file()

    def step(self, what: str, done: int, total: int) -> None:
        assert done <= total

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)
        if len(self.reports) == self._most:
            raise FinishTraining("enough")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The modules of a new backend."""
    folder = tmp_path_factory.mktemp("fresh")
    made = new_plugin("fresh-numbers", "backend", folder=folder)
    names = ("plugin", "network", "pixels", "train", "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(made.path))
        version = importlib.metadata.version
        patch.setattr(
            importlib.metadata, "version", lambda n: "0" if n == made.plugin else version(n)
        )
        yield SimpleNamespace(
            **{name: importlib.import_module(f"fresh_numbers.{name}") for name in names}
        )
        for name in [name for name in sys.modules if name.startswith("fresh_numbers")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def network(fresh: Any) -> Any:
    (backbone,) = fresh.plugin.automl_tl_backbones()
    return fresh.network.build(NetworkSpec(backbone.key, SIDE, None, "random:3", 3), backbone)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    random = np.random.default_rng(0)
    images = random.integers(0, 120, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    for label in range(CLASSES):
        images[label == LABELS, :, :, label] += 100
    np.save(path, images)
    return path


def make_job(network: Any, pixels: Path, folder: Path, **changes: Any) -> TrainJob:
    """A job on stored features, then from the pixels."""
    end = len(network.info.layers)
    features = folder / "features.npy"
    np.save(features, network.forward(np.load(pixels), 0, end))
    live, stored = Source(pixels, 0), Source(features, end)
    job = TrainJob(
        network=network.spec,
        info=network.info,
        head=Head(CLASSES, units=(16,), scale=0.5),
        fine_tune_at=0,
        warmup=PhaseSpec(4, 0.05),
        fine_tuning=PhaseSpec(0, 0.01),
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        batch_size=7,
        label_smoothing=0.1,
        class_weights=np.array([0.5, 1.0, 2.0], np.float32),
        seed=5,
        train_labels=LABELS,
        head_train=stored,
        head_validation=stored,
        tune_train=(live,),
        tune_validation=live,
    )
    return replace(job, **changes)


def test_pooling_averages_over_an_uneven_grid(fresh: Any) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    pooled = fresh.pixels.pool(images, HALVES).reshape(2, 8, 8, 3)
    expected = images[1, 2:5, 17:20, 2].mean() / 255 * 2 - 1
    assert pooled[1, 1, 7, 2] == pytest.approx(expected, abs=1e-6)
    swapped = fresh.pixels.pool(images, replace(HALVES, channels="bgr")).reshape(2, 8, 8, 3)
    np.testing.assert_allclose(swapped, pooled[..., ::-1], atol=1e-6)


def test_augmentation_follows_the_formulas(fresh: Any) -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    same = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    mirrored = np.array([[-1, 0, 0], [0, 1, 0]], np.float32)
    plain = np.ones((2, 3), np.float32)
    found = fresh.pixels.augment(images, ViewParameters(np.stack([same, mirrored]), plain))
    np.testing.assert_allclose(found[0], images[0], atol=1e-2)
    np.testing.assert_allclose(found[1], images[1, :, ::-1], atol=1e-2)
    shifted = np.array([[1, 0, 2 / SIDE], [0, 1, 0]], np.float32)  # by a pixel, reflected
    darker = np.array([[0.5, 1, 1]], np.float32)
    found = fresh.pixels.augment(images[:1], ViewParameters(shifted[None], darker))
    expected = np.concatenate([images[0, :, 1:], images[0, :, -1:]], axis=1) * 0.5
    np.testing.assert_allclose(found[0], expected, atol=1e-2)
    grey = fresh.pixels.augment(images[:1], ViewParameters(same[None], np.float32([[1, 1, 0]])))
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-3)


def test_every_cut_leads_to_the_same_output(network: Any, pixels: Path) -> None:
    images, end = np.load(pixels), len(network.info.layers)
    whole = network.forward(images, 0, end)
    assert [cut.index for cut in network.info.cuts] == list(range(end + 1))
    for cut in network.info.cuts:
        below = network.forward(images, 0, cut.index)
        if cut.index:
            assert below.shape[1:] == cut.shape
        again = network.forward(images if cut.index == 0 else below, cut.index, end)
        np.testing.assert_allclose(again, whole, atol=1e-5)


def test_heads_train_as_the_core_trains_them(
    fresh: Any, network: Any, pixels: Path, tmp_path: Path
) -> None:
    for optimizer in ("sgd", "adamw"):
        job = make_job(network, pixels, tmp_path, optimizer=optimizer, weight_decay=0.01)
        mine, core = Listener(), Listener()
        fresh.train.NumpyTrainer(job, network).run(mine)
        train_together([job], [core])
        assert len(mine.reports) == 4
        for one, other in zip(mine.reports, core.reports, strict=True):
            np.testing.assert_allclose(one.validation_logits, other.validation_logits, atol=1e-4)
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)


def test_a_step_descends_as_fast_as_its_gradient_says(
    fresh: Any, network: Any, pixels: Path, tmp_path: Path
) -> None:
    rate = 1e-4
    head = Head(CLASSES, units=(16,), scale=0.5)
    drawn = kernels(head, network.info.features, 5)
    weights = [x for kernel in drawn for x in (kernel, np.full(kernel.shape[1], 0.1, np.float32))]
    job = make_job(
        *(network, pixels, tmp_path),
        optimizer="adam",
        fine_tune_optimizer="sgd",
        batch_size=IMAGES,
        fine_tuning=PhaseSpec(1, rate),
        head_weights=tuple(weights),
    )
    trainer = fresh.train.NumpyTrainer(job, network)
    trainer.save(tmp_path / "before.safetensors", {})
    listener = Listener()
    facts = trainer.run(listener)
    trainer.save(tmp_path / "after.safetensors", {})
    before, after = (load_file(tmp_path / f"{x}.safetensors") for x in ("before", "after"))
    assert facts.trainable_variables == len(before) == 8
    squares = sum(float((((before[n] - after[n]) / rate) ** 2).sum()) for n in before)
    first = apply(weights, network.forward(np.load(pixels), 0, 3) * np.float32(0.5))
    assert job.class_weights is not None
    descent = _loss(first, job) - _loss(listener.reports[0].validation_logits, job)
    assert descent == pytest.approx(rate * squares, rel=0.03)
    assert listener.reports[0].train_loss == pytest.approx(_loss(first, job), rel=1e-4)


def test_stored_activations_train_as_the_pixels_do(
    fresh: Any, network: Any, pixels: Path, tmp_path: Path
) -> None:
    head = Head(CLASSES, dropout=0.3)
    job = make_job(network, pixels, tmp_path, head=head, fine_tuning=PhaseSpec(3, 0.01))
    job = replace(job, fine_tune_at=2)
    live, stored = Listener(), Listener()
    trainer = fresh.train.NumpyTrainer(job, network)
    facts = trainer.run(live)
    path = tmp_path / "cut.npy"
    np.save(path, network.forward(np.load(pixels), 0, 2))
    source = Source(path, 2)
    cut = replace(job, tune_train=(source,), tune_validation=source)
    fresh.train.NumpyTrainer(cut, network).run(stored)
    for one, other in zip(live.reports, stored.reports, strict=True):
        np.testing.assert_allclose(one.validation_logits, other.validation_logits, atol=1e-4)
    trainer.save(tmp_path / "model.safetensors", {})
    saved = load_file(tmp_path / "model.safetensors")
    for number, array in enumerate(network.weights):  # the first dense layer stays frozen
        assert np.array_equal(saved[f"backbone.{number}"], array) == (number < 2)
    assert facts.trainable_parameters == 128 * 64 + 64 + 64 * CLASSES + CLASSES


def test_a_trainer_that_was_stopped_keeps_the_last_reported_epoch(
    fresh: Any, network: Any, pixels: Path, tmp_path: Path
) -> None:
    job = make_job(network, pixels, tmp_path)
    trainer = fresh.train.NumpyTrainer(job, network)
    with pytest.raises(TrialError, match="before its first epoch"):
        trainer.save(tmp_path / "model.safetensors", {})
    listener = Listener(most=2)
    with pytest.raises(FinishTraining):
        trainer.run(listener)
    trainer.save(tmp_path / "model.safetensors", {})
    saved = load_file(tmp_path / "model.safetensors")
    weights = [saved[f"head.{number}"] for number in range(4)]
    logits = apply(weights, np.load(job.head_train.path) * np.float32(0.5))
    np.testing.assert_allclose(logits, listener.reports[1].validation_logits, atol=1e-5)


def test_weights_of_another_network_are_refused(fresh: Any, tmp_path: Path) -> None:
    for content in (b"no weights", b""):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read"):
            fresh.network.perceptron(tmp_path / "w.safetensors", "fresh/net")
    fresh.model.save(tmp_path / "w.safetensors", [np.zeros((2, 2), np.float32)], [], {})
    with pytest.raises(WeightsError, match="of another network"):
        fresh.network.perceptron(tmp_path / "w.safetensors", "fresh/net")


def _loss(logits: Any, job: TrainJob) -> float:
    """Weighted, smoothed cross-entropy in float64."""
    x = logits.astype(np.float64)
    x = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    losses = -(0.9 * x[np.arange(len(x)), LABELS] + 0.1 * x.mean(axis=1))
    assert job.class_weights is not None
    return float((losses * job.class_weights[LABELS]).mean())
