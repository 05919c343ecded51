"""Heads that train together: one pass over stored features for all of them, in this process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from automl_tl.errors import AutoMLError
from automl_tl.training import loop
from automl_tl.training.head import parameters
from automl_tl.training.heads import HeadStack
from automl_tl.training.rows import Rows
from automl_tl.types import EpochReport, TrainFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.training.loop import Epoch, Stage
    from automl_tl.types import Source, TrainJob

LARGEST = 4 << 20
"""Parameters of a head up to which NumPy is about as fast as a framework."""
_STACKED = 1 << 19
"""Parameters of a stack: larger heads train one after the other, each in the CPU's cache."""
_BATCH = 4096
_GATHERED = 64 << 20
"""Bytes up to which an epoch's features are put in order at once."""
_LOOK_SECONDS = 0.1


def fits(job: TrainJob) -> bool:
    """Whether a job's warm-up is for ``train_together``: a small head on stored vectors."""
    source = job.head_train
    vector = source.pooling is not None or len(job.info.cuts[-1].shape) == 1
    stored = source.cut == len(job.info.layers) and vector
    return stored and parameters(job.head, job.info.features) <= LARGEST


@dataclass(slots=True)
class Ending:
    """What became of a head.

    Attributes:
        weights: As of the last reported epoch, as ``TrainJob.head_weights``; None before one.
        error: What its progress raised, or the ``TrialError`` that it failed with; None when it
            trained to the end.
    """

    weights: tuple[NDArray[np.float32], ...] | None = None
    error: AutoMLError | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Keep the first error that is raised on purpose."""
        try:
            yield
        except AutoMLError as error:
            self.error = self.error or error


def train_together(
    jobs: Sequence[TrainJob], progresses: Sequence[Progress], threads: int = 1
) -> list[Ending]:
    """Train the warm-ups of several jobs, each to the numbers that it would reach alone.

    Heads of one shape and batch size are stacked; the stacks are shared among threads. Every head
    reports each of its epochs on its own, and may end on its own.

    Args:
        jobs: Each ``fits``. They have the same sources, labels and seed.
        progresses: One a job, called from this thread; within an epoch only the first is, for all.
        threads: Stacks that are trained at a time.
    """
    first = jobs[0]
    for source in (first.head_train, first.head_validation):
        progresses[0].need(source)
    members = [
        _Member(index, job, next(loop.stages(job)), progress)
        for index, (job, progress) in enumerate(zip(jobs, progresses, strict=True))
    ]
    train = _Features(first.head_train, first.head.scale)
    validation = _Features(first.head_validation, first.head.scale)
    stop = threading.Event()
    groups = [_Group(found, train, validation, stop) for found in _alike(members, train.width)]
    # The products are so small that a second thread in each costs more than it brings.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        for number in range(max(member.stage.spec.epochs for member in members)):
            groups = [group for group in groups if group.members]
            if groups:
                _epoch(number, groups, pool, stop)
    return [member.ending for member in members]


def head_facts(job: TrainJob) -> TrainFacts:
    """Return the facts of a job that trained its head here."""
    head = parameters(job.head, job.info.features)
    return TrainFacts(
        total_parameters=sum(layer.parameters for layer in job.info.layers) + head,
        trainable_parameters=head,
        trainable_variables=2 * len(job.head.units) + 2,
        device="cpu",
        precision="float32",
    )


@dataclass(slots=True)
class _Member:
    """A head on its way."""

    index: int
    job: TrainJob
    stage: Stage
    progress: Progress
    ending: Ending = field(default_factory=Ending)
    loss: float = 0.0
    rate: float = 0.0
    logits: NDArray[np.float32] | None = None


class _Group:
    """Heads of one shape and batch size."""

    def __init__(
        self,
        members: list[_Member],
        train: _Features,
        validation: _Features,
        stop: threading.Event,
    ) -> None:
        self.members = members
        self._train = train
        self._validation = validation
        self._stop = stop
        self._stack = HeadStack([member.job for member in members], train.width)
        self.done = 0

    def cost(self) -> int:
        """Return what an epoch costs, compared with other groups."""
        head = self.members[0].job.head
        return len(self.members) * parameters(head, self._train.width)

    def train(self, number: int) -> None:
        """Take the steps of an epoch and compute the validation logits, unless stopped."""
        first = self.members[0].job
        plans = [
            loop.plan_epoch(member.job, member.stage, number, member.job.head_train)
            for member in self.members
        ]
        rates = np.stack([plan.rates for plan in plans])
        losses = np.zeros(len(self.members))
        with np.errstate(all="ignore"):  # numbers that are no longer finite are reported
            for done, total in self._stack.train(self._batches(plans[0]), rates, plans[0].key):
                self.done, losses = done, total
                if self._stop.is_set():
                    return
        for member, loss, plan in zip(self.members, losses, plans, strict=True):
            member.loss = float(loss) / len(first.train_labels)
            member.rate = float(plan.rates[-1])
        parts = [self._stack.logits(x) for x in self._validation.parts()]
        for member, logits in zip(self.members, np.concatenate(parts, axis=1), strict=True):
            member.logits = logits

    def report(self, member: _Member, number: int, seconds: float) -> None:
        """Check, remember and report an epoch of a head."""
        stage, logits = member.stage, member.logits
        assert logits is not None, "train comes first"
        loop.check_finite(member.loss, "loss", stage, number)
        loop.check_finite(logits, "validation logits", stage, number)
        member.ending.weights = self._stack.weights(self.members.index(member))
        member.progress.epoch(
            EpochReport(
                phase=stage.name,
                epoch=number,
                epochs=stage.spec.epochs + member.job.fine_tuning.epochs,
                train_loss=member.loss,
                validation_logits=logits,
                learning_rate=member.rate,
                seconds=seconds,
            )
        )

    def drop_ended(self, number: int) -> None:
        """Train no further what failed, was stopped, or has come to its last epoch."""
        for index in reversed(range(len(self.members))):
            member = self.members[index]
            if member.ending.error or number + 1 >= member.stage.spec.epochs:
                del self.members[index]
                if self.members:
                    self._stack.drop(index)

    def _batches(self, plan: Epoch) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        job = self.members[0].job
        for positions, x in self._train.batches(plan.order, job.batch_size):
            yield x, job.train_labels[positions]


def _alike(members: Sequence[_Member], width: int) -> list[list[_Member]]:
    """Group members that can be stacked, those of one optimizer beside each other."""
    groups: dict[Any, list[_Member]] = {}
    for member in sorted(members, key=lambda member: (member.job.optimizer, member.index)):
        job = member.job
        weights = None if job.class_weights is None else job.class_weights.tobytes()
        groups.setdefault((job.head.units, job.batch_size, weights), []).append(member)
    found = []
    for alike in groups.values():
        most = max(1, _STACKED // parameters(alike[0].job.head, width))
        found += [alike[start : start + most] for start in range(0, len(alike), most)]
    return found


def _epoch(
    number: int, groups: Sequence[_Group], pool: ThreadPoolExecutor, stop: threading.Event
) -> None:
    """Train one epoch of all heads; then each reports, and may end."""
    started = time.perf_counter()
    order = sorted(
        ((member, group) for group in groups for member in group.members),
        key=lambda pair: pair[0].index,
    )
    costly = sorted(groups, key=_Group.cost, reverse=True)
    running = [pool.submit(group.train, number) for group in costly]
    images = len(order[0][0].job.train_labels)
    while wait_for(running, _LOOK_SECONDS).not_done:
        first, group = order[0]
        with first.ending.caught():
            first.progress.step(first.stage.name, group.done, images)
        if first.ending.error:  # whoever wants one to stop wants all
            stop.set()
            for member, _ in order:
                member.ending.error = first.ending.error
    for one in running:
        one.result()
    seconds = (time.perf_counter() - started) / len(order)
    for member, group in order:
        if member.ending.error is None:
            with member.ending.caught():
                group.report(member, number, seconds)
    for group in groups:
        group.drop_ended(number)


class _Features:
    """Stored features times a scale: in memory when they fit, else read as they are used."""

    def __init__(self, source: Source, scale: float) -> None:
        self._rows = Rows(source)
        self._scale = np.float32(scale)
        self._array = self._held() if self._rows.fits else None
        self.width = self._rows.shape[0]

    def _held(self) -> NDArray[Any]:
        """Read all features, in parts: a whole copy beside them would double what is resident."""
        array = np.empty((len(self._rows), *self._rows.shape), np.float32)
        for start in range(0, len(array), _BATCH):
            part = self._rows.chunk(start, start + _BATCH)
            np.multiply(part, self._scale, out=array[start : start + len(part)])
        return array

    def parts(self) -> Iterator[NDArray[Any]]:
        """Yield all features, in order."""
        for _, x in self.batches(np.arange(len(self._rows)), _BATCH):
            yield x

    def batches(
        self, order: NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield positions and features of each batch."""
        if self._array is None:
            rows = Rows(self._rows.source)  # it holds what it read last, and threads read at once
            for positions in rows.batches(order, batch_size):
                yield positions, rows.take(positions) * self._scale
            return
        whole = self._array[order] if self._array.nbytes <= _GATHERED else None
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            x = self._array[positions] if whole is None else whole[start : start + batch_size]
            yield positions, x
