"""Shows that trials leave nothing behind: many in one process, with their time and memory.

Usage: `python plugins/automl-tl-keras/tools/memory.py [FROZEN] [TUNED]`, by default 50 frozen
trials (800 images of 1,280 features, 40 epochs, batches of 32) and 10 that fine-tune MobileNetV2
with random weights (64 images of 96 pixels, 1 + 4 epochs). Prints a row a trial: its number and
kind, seconds in all, seconds beyond its steps (each phase's epochs taken for as long as their
median), and the resident memory afterwards.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from automl_tl.specs import Backbone, Preprocess
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob
from automl_tl_keras.backend import KerasBackend

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
UNITS: tuple[tuple[int, ...], ...] = ((), (64,), (256,), (128, 64))
IMAGES = 800
PIXELS = 96
CLASSES = 5


class Seconds:
    """Keeps what the epochs of a trial took, by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, list[float]] = {}

    def need(self, source: Source) -> None:
        """All arrays are there."""

    def epoch(self, report: Any) -> None:
        """Keep an epoch."""
        self.phases.setdefault(report.phase, []).append(report.seconds)

    def step(self, what: str, done: int, total: int) -> None:
        """Nobody looks."""

    @property
    def steps(self) -> float:
        """Seconds of all epochs, if each took as long as the median of its phase."""
        return sum(len(seconds) * statistics.median(seconds) for seconds in self.phases.values())


def load(_weights: Path | None) -> Any:
    """Build the network that is fine-tuned."""
    import keras

    shape = (PIXELS, PIXELS, 3)
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape)


def frozen_job(base: TrainJob, number: int) -> dict[str, Any]:
    """Return what a frozen trial varies: everything that a search does."""
    random = np.random.default_rng(number)
    return {
        "optimizer": OPTIMIZERS[number % 5],
        "head": Head(CLASSES, UNITS[number % 4], float(random.uniform(0, 0.5))),
        "warmup": PhaseSpec(40, float(random.uniform(1e-4, 1e-2))),
        "weight_decay": float(random.uniform(0, 1e-2)),
        "label_smoothing": float(random.uniform(0, 0.2)),
        "batch_size": int(random.choice([16, 32, 64])),
        "seed": number,
    }


def tuned_job(base: TrainJob, number: int, pixels: Path) -> dict[str, Any]:
    """Return what a trial varies that fine-tunes: depth and optimizer among it."""
    images = Source(pixels, 0, rows=np.arange(64))
    cuts = [cut.index for cut in base.info.cuts]
    shares = (0.7, 0.8, 0.9)
    wanted = shares[number % 3] * len(base.info.layers)
    return {
        **frozen_job(base, number),
        "optimizer": OPTIMIZERS[number % 2],
        "warmup": PhaseSpec(1, 1e-3),
        "fine_tune_at": min(cuts, key=lambda cut: abs(cut - wanted)),
        "fine_tuning": PhaseSpec(4, 1e-4),
        "train_labels": base.train_labels[:64],
        "head_train": images,
        "head_validation": images,
        "tune_train": (images,),
        "tune_validation": images,
    }


def first_job(backend: KerasBackend, spec: NetworkSpec, folder: Path) -> TrainJob:
    """Store features and labels, and return a job on them."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, IMAGES)
    centres = random.normal(size=(CLASSES, 1280))
    features = centres[labels] + 3 * random.normal(size=(IMAGES, 1280))
    np.save(folder / "features.npy", features.astype(np.float32))
    info = backend.describe(spec)
    source = Source(folder / "features.npy", len(info.layers), "avg")
    return TrainJob(
        network=spec,
        info=info,
        head=Head(CLASSES),
        fine_tune_at=len(info.layers),
        warmup=PhaseSpec(40, 1e-3),
        fine_tuning=PhaseSpec(0, 0.0),
        optimizer="adam",
        schedule="cosine",
        weight_decay=0.0,
        batch_size=32,
        label_smoothing=0.0,
        class_weights=None,
        seed=0,
        train_labels=labels,
        head_train=source,
        head_validation=source,
    )


def main(frozen: int = 50, tuned: int = 10) -> None:
    """Print the table."""
    from dataclasses import replace

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tanh = Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    backbone = Backbone("mobile", "keras", load, PIXELS, 0, preprocess=tanh)
    spec = NetworkSpec(backbone.key, PIXELS, None, "random:0")
    backend = KerasBackend(lambda key: backbone)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = first_job(backend, spec, folder)
        pixels = folder / "pixels.npy"
        shape = (64, PIXELS, PIXELS, 3)
        np.save(pixels, np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8))
        kinds: list[tuple[str, Any]] = [("frozen", frozen_job)] * frozen
        kinds += [("tuned", partial(tuned_job, pixels=pixels))] * tuned
        print("trial  kind    seconds  beyond steps  MiB")
        for number, (kind, changes) in enumerate(kinds):
            started, seconds = time.perf_counter(), Seconds()
            job = replace(base, **changes(base, number))
            backend.trainer(job).run(seconds)
            whole = time.perf_counter() - started
            memory = psutil.Process().memory_info().rss / 2**20
            print(
                f"{number:5}  {kind:6}  {whole:7.2f}  {whole - seconds.steps:12.2f}  {memory:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
