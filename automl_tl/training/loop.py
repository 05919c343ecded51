"""The training loop: phases, order, rates, checks and reports. A backend supplies the steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from automl_tl import schedules
from automl_tl.errors import TrialError
from automl_tl.training.order import shuffled
from automl_tl.training.rows import Rows
from automl_tl.types import EpochReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.types import Phase, PhaseSpec, Source, TrainJob


@dataclass(frozen=True, slots=True)
class Stage:
    """One phase of a job: what it trains, on what.

    Attributes:
        number: 0 for the warm-up, 1 for fine-tuning.
        name: Of the phase.
        spec: Its epochs and peak learning rate.
        fine_tune_at: ``layers[:fine_tune_at]`` stay frozen.
        train: Training sources; epoch ``e`` reads ``train[e % len(train)]``.
        validation: Validation source.
        epochs_before: Epochs of the phases before.
        optimizer: Its optimizer's name.
    """

    number: int
    name: Phase
    spec: PhaseSpec
    fine_tune_at: int
    train: tuple[Source, ...]
    validation: Source
    epochs_before: int
    optimizer: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        source: Where they are read from.
        order: int64 ``(n,)`` positions in the source's rows; consecutive runs of the job's batch
            size are the batches, the last one may be smaller.
        rates: float64 ``(steps,)``, the learning rate of each step.
        key: Seeds whatever else is random in the epoch: dropout, stochastic depth.
    """

    source: Source
    order: NDArray[np.int64]
    rates: NDArray[np.float64]
    key: tuple[int, int, int]


class Steps(Protocol):
    """The part of training that a framework does."""

    def begin(self, stage: Stage) -> None:
        """Make the stage's layers trainable, with a new optimizer."""

    def train(self, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Take an epoch's steps.

        Yields:
            Now and then, and at the end, how many images are done and the sum of their losses;
            None for the sum where looking at it would mean waiting for the device.
        """

    def validate(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield float32 logits ``(n, classes)`` of a source's images, part by part in order."""

    def remember(self) -> None:
        """Keep the trained variables as they are now, for ``Trainer.save``."""


def train(job: TrainJob, steps: Steps, progress: Progress) -> None:
    """Train a job to the end, or until ``progress`` raises.

    Shuffling and rates are the same for every framework and do not depend on what is stored:
    the order of an epoch follows from (seed, phase, epoch) and the number of images alone.

    Args:
        job: What to train.
        steps: The framework's part.
        progress: Told of every epoch.

    Raises:
        TrialError: The loss or a logit is no longer finite, or the sources lie above the layers
            that are to be trained.
    """
    for stage in stages(job):
        steps.begin(stage)
        for number in range(stage.spec.epochs):
            report = _epoch(job, stage, number, steps, progress)
            steps.remember()
            progress.epoch(report)


def stages(job: TrainJob) -> Iterator[Stage]:
    """Yield the phases of a job that have epochs and are still to do.

    Raises:
        TrialError: The sources lie above the layers that are to be trained.
    """
    layers = len(job.info.layers)
    if job.warmup.epochs and job.head_weights is None:
        sources = (job.head_train,), job.head_validation
        yield Stage(0, "warm-up", job.warmup, layers, *sources, 0, job.optimizer)
    if job.fine_tuning.epochs:
        validation = job.tune_validation or job.head_validation
        train = job.tune_train or (job.head_train,)
        above = max(source.cut for source in train)
        if above > job.fine_tune_at:
            raise TrialError(
                f"fine-tuning from layer {job.fine_tune_at} needs activations from there or "
                f"below, but got those of layer {above}; this is a mistake in the plan."
            )
        before, at = job.warmup.epochs, job.fine_tune_at
        optimizer = job.fine_tune_optimizer or job.optimizer
        yield Stage(1, "fine-tuning", job.fine_tuning, at, train, validation, before, optimizer)


def _epoch(
    job: TrainJob, stage: Stage, number: int, steps: Steps, progress: Progress
) -> EpochReport:
    started = time.perf_counter()
    source = stage.train[number % len(stage.train)]
    for needed in (source, stage.validation):
        progress.need(needed)
    epoch = plan_epoch(job, stage, number, source)
    images, loss, last = len(epoch.order), 0.0, 0
    everything = images + len(Rows(stage.validation))
    for done, total in steps.train(epoch):
        if total is not None:
            loss = total
            check_finite(loss, "loss", stage, number)
        last = done
        progress.step(stage.name, done, everything)
    if last != images:
        raise TrialError(
            f"the backend trained on {last} of {images} images; report it to its author."
        )
    parts = []
    progress.need(stage.validation)  # an epoch may take longer than a cache keeps what nobody uses
    for part in steps.validate(stage.validation):
        parts.append(part)
        progress.step(stage.name, images + sum(map(len, parts)), everything)
    logits = np.concatenate(parts)
    check_finite(logits, "validation logits", stage, number)
    return EpochReport(
        phase=stage.name,
        epoch=stage.epochs_before + number,
        epochs=job.warmup.epochs + job.fine_tuning.epochs,
        train_loss=loss / images,
        validation_logits=logits,
        learning_rate=float(epoch.rates[-1]),
        seconds=time.perf_counter() - started,
    )


def sources_of(job: TrainJob, report: EpochReport) -> tuple[Source, ...]:
    """Return what an epoch of a job was trained and validated on."""
    if report.phase == "warm-up":
        return job.head_train, job.head_validation
    number = report.epoch - job.warmup.epochs
    train = job.tune_train[number % len(job.tune_train)] if job.tune_train else job.head_train
    return train, job.tune_validation or job.head_validation


def plan_epoch(job: TrainJob, stage: Stage, number: int, source: Source) -> Epoch:
    """Return order, rates and key of epoch ``number`` of a stage, read from ``source``."""
    images = len(job.train_labels)
    count = math.ceil(images / job.batch_size)
    key = (job.seed, stage.number, number)
    peak, total = stage.spec.learning_rate, stage.spec.epochs * count
    rates = [
        schedules.learning_rate(job.schedule, peak, number * count + step, total)
        for step in range(count)
    ]
    order = shuffled(images, np.random.default_rng(key))
    return Epoch(source, order, np.array(rates), key)


def check_finite(values: float | NDArray[np.float32], what: str, stage: Stage, number: int) -> None:
    """Check what epoch ``number`` of a stage came to.

    Raises:
        TrialError: A value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise TrialError(
            f"the {what} became NaN or infinite in epoch {number + 1} of {stage.spec.epochs} of "
            f"the {stage.name}; try a lower learning rate."
        )
