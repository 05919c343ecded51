"""A small workshop for tests that train: images, a network, stored activations, jobs."""

from __future__ import annotations

import dataclasses
import gc
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from automl_tl.modelfile import ModelFacts
from automl_tl.specs import Backbone
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob, View
from automl_tl_keras.backend import KerasBackend
from automl_tl_keras.tiny import tiny_backbone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from automl_tl.types import EpochReport, TrainFacts
    from automl_tl_keras.train import KerasTrainer


def pytest_collection_finish() -> None:
    # Keras asks for many collections; none of them need look through all that was imported.
    gc.freeze()


def random_network(name: str, image_size: int, _weights: Path | None) -> keras.Model:
    """A network with random weights whose BatchNorm statistics fit, or its signal would vanish."""
    make = getattr(keras.applications, name)
    network = make(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(2 * keras.random.normal((16, image_size, image_size, 3)), training=True)
    return network


def keras_backbone(name: str, input_size: int) -> Backbone:
    load = partial(random_network, name, input_size)
    return Backbone(name, "keras", load, input_size=input_size, parameters=0)


class Recorder:
    """Keeps what a trainer reports; raises ``stop`` after ``epochs`` reports or ``steps`` steps."""

    def __init__(
        self, stop: Exception | None = None, epochs: int | None = None, steps: int | None = None
    ) -> None:
        self.stop, self.last_epoch, self.last_step = stop, epochs, steps
        self.reports: list[EpochReport] = []
        self.steps: list[tuple[str, int, int]] = []
        self.needed: list[Source] = []

    def need(self, source: Source) -> None:
        self.needed.append(source)

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)
        if self.stop and len(self.reports) == self.last_epoch:
            raise self.stop

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))
        if self.stop and len(self.steps) == self.last_step:
            raise self.stop

    @property
    def logits(self) -> np.ndarray[Any, Any]:
        return np.stack([report.validation_logits for report in self.reports])


class Workshop:
    """Noisy images of horizontal, vertical and no stripes, and one network."""

    classes = 3

    def __init__(self, folder: Path, backbone: Backbone, image_size: int, images: int) -> None:
        random = np.random.default_rng(0)
        self.folder = folder
        self.backbone = backbone
        self.images = images
        self.labels = np.arange(images) % self.classes
        shape = (images, image_size, image_size, 3)
        y, x = np.mgrid[:image_size, :image_size] // 4 % 2
        stripes = 100 * np.stack([y, x, 0 * x])[self.labels][..., None]
        self.pixels = (stripes + random.integers(0, 150, shape)).astype(np.uint8)
        np.save(folder / "pixels.npy", self.pixels)
        held_out = images // 4
        self.train_rows = random.permutation(images)[held_out:]
        self.validation_rows = np.setdiff1d(np.arange(images), self.train_rows)
        self.backend = KerasBackend(lambda key: backbone)
        path = backbone.pretrained.path() if backbone.pretrained else None
        self.spec = NetworkSpec(backbone.key, image_size, path, "weights", seed=1)
        self.info = self.backend.describe(self.spec)
        self.end = len(self.info.layers)
        self.cuts = [cut.index for cut in self.info.cuts]

    def cut(self, share: float) -> int:
        """The cut nearest to a share of the layers."""
        return min(self.cuts, key=lambda index: abs(index - share * self.end))

    def stored(
        self, cut: int, pooling: Any = None, view: View | None = None, rows: Any = None
    ) -> Source:
        """Where activations lie, computed by the backend from the pixels."""
        rows = np.arange(self.images) if rows is None else rows
        pixels = Source(self.folder / "pixels.npy", 0, rows=rows, view=view)
        if cut == 0:
            return pixels
        shape = (self.info.features,) if pooling else self.info.cuts[self.cuts.index(cut)].shape
        out = self.folder / f"{cut}-{pooling}-{view.index if view else None}-{len(rows)}.npy"
        if not out.exists():
            np.save(out, np.zeros((len(rows), *shape), np.float32))
            self.backend.run(self.spec, pixels, cut, pooling, out, Recorder())
        return Source(out, cut, pooling)

    def train_and_validation(
        self, cut: int, pooling: Any = None, view: View | None = None
    ) -> tuple[Source, Source]:
        if view:
            return (
                self.stored(cut, pooling, view, self.train_rows),
                self.stored(cut, pooling, None, self.validation_rows),
            )
        source = self.stored(cut, pooling)
        return (
            dataclasses.replace(source, rows=self.train_rows),
            dataclasses.replace(source, rows=self.validation_rows),
        )

    def job(self, **changes: Any) -> TrainJob:
        """A job that trains the head on pooled features, unless told otherwise."""
        train, validation = self.train_and_validation(self.end, "avg")
        job = TrainJob(
            network=self.spec,
            info=self.info,
            head=Head(self.classes, units=(16,), dropout=0.3, scale=0.6),
            fine_tune_at=self.end,
            warmup=PhaseSpec(2, 1e-2),
            fine_tuning=PhaseSpec(0, 1e-3),
            optimizer="adam",
            schedule="cosine",
            weight_decay=1e-3,
            batch_size=8,
            label_smoothing=0.1,
            class_weights=np.array([0.5, 1.0, 1.5], np.float32),
            seed=7,
            train_labels=self.labels[self.train_rows],
            head_train=train,
            head_validation=validation,
        )
        return dataclasses.replace(job, **changes)

    def tuning(self, cut: int, fine_tune_at: int, **changes: Any) -> TrainJob:
        """A job of both phases that fine-tunes from activations stored at a cut."""
        train, validation = self.train_and_validation(cut)
        tuned = {
            "fine_tune_at": fine_tune_at,
            "fine_tuning": PhaseSpec(2, 1e-3),
            "tune_train": (train,),
            "tune_validation": validation,
        }
        return self.job(**(tuned | changes))

    def train(
        self, job: TrainJob, recorder: Recorder | None = None
    ) -> tuple[KerasTrainer, TrainFacts, Recorder]:
        recorder = recorder or Recorder()
        trainer = self.backend.trainer(job)
        return trainer, trainer.run(recorder), recorder  # type: ignore[return-value]

    def facts(self, job: TrainJob) -> ModelFacts:
        names = tuple(f"class {index}" for index in range(self.classes))
        size = self.spec.image_size
        return ModelFacts(self.spec.backbone, size, "squash", names, job.head, job.fine_tune_at)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workshop]:
    """Get a workshop: ``workshop()`` is on ``keras/tiny``, ``workshop(NAME, SIZE)`` on others.

    A workshop serves all tests that ask for the same, with all that was compiled for it. A
    backbone may stand in place of a name.
    """
    made: dict[tuple[str, int, int], Workshop] = {}

    def make(name: str | Backbone = "tiny", image_size: int = 24, images: int = 36) -> Workshop:
        key = name.name if isinstance(name, Backbone) else name, image_size, images
        if key not in made:
            if isinstance(name, Backbone):
                backbone = name
            elif name == "tiny":
                backbone = tiny_backbone()
            else:
                backbone = keras_backbone(name, image_size)
            folder = tmp_path_factory.mktemp(f"{backbone.name}-{image_size}-{images}")
            made[key] = Workshop(folder, backbone, image_size, images)
        return made[key]

    return make
