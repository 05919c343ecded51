"""The warm-up of a trial: its head, on stored features, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from automl_tl.training import loop
from automl_tl.training.heads import HeadStack, parameters
from automl_tl.training.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.training.loop import Epoch, Stage
    from automl_tl.types import Source, TrainJob

LARGEST = 1 << 20
"""Parameters of a head up to which NumPy is as fast as a framework, since the CPU caches them."""
_BATCH = 4096
_GATHERED = 64 << 20
"""Bytes up to which an epoch's features are put in order at once."""


def fits(job: TrainJob) -> bool:
    """Whether a job's warm-up is for ``HeadTrainer``: a small head on stored vectors."""
    source = job.head_train
    vector = source.pooling is not None or len(job.info.cuts[-1].shape) == 1
    stored = source.cut == len(job.info.layers) and vector
    return stored and parameters(job.head, job.info.features) <= LARGEST


class HeadTrainer:
    """Trains the head of a job through its warm-up.

    Args:
        job: One that ``fits``.

    Attributes:
        weights: The head as of the last reported epoch, as ``TrainJob.head_weights``; None before.
    """

    def __init__(self, job: TrainJob) -> None:
        self._job = job
        self._stack: HeadStack | None = None
        self._features: dict[int, _Features] = {}
        self.weights: tuple[NDArray[np.float32], ...] | None = None

    def run(self, progress: Progress) -> None:
        """Train to the end of the warm-up, or until ``progress`` raises."""
        # The products are so small that a second thread costs more than it brings.
        with threadpool_limits(1, "blas"):
            loop.train(self._job, self, progress, phases=("warm-up",))

    def begin(self, stage: Stage) -> None:
        """Draw the head's weights; see ``Steps``."""
        self._stack = HeadStack([self._job], self._job.info.features)

    def train(self, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Take an epoch's steps; see ``Steps``."""
        batches = self._open(epoch.source).batches(epoch.order, self._job.batch_size)
        labelled = ((x, self._job.train_labels[positions]) for positions, x in batches)
        for done, total in self._heads.train(labelled, epoch.rates[None], epoch.key):
            yield done, float(total[0])

    def validate(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of a source's images; see ``Steps``."""
        features = self._open(source)
        for _, x in features.batches(np.arange(len(features.rows)), _BATCH):
            yield self._heads.logits(x)[0]

    def remember(self) -> None:
        """Copy the head; see ``Steps``."""
        self.weights = self._heads.weights(0)

    @property
    def _heads(self) -> HeadStack:
        assert self._stack is not None, "begin comes first"
        return self._stack

    def _open(self, source: Source) -> _Features:
        key = id(source)
        if key not in self._features:
            self._features[key] = _Features(source, self._job.head.scale)
        return self._features[key]


class _Features:
    """Stored features times a scale: in memory when they fit, else read as they are used."""

    def __init__(self, source: Source, scale: float) -> None:
        self.rows = Rows(source)
        self._scale = np.float32(scale)
        self._array = self.rows.chunk(0, len(self.rows)) * self._scale if self.rows.fits else None

    def batches(
        self, order: NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield positions and features of each batch."""
        if self._array is None:
            for positions in self.rows.batches(order, batch_size):
                yield positions, self.rows.take(positions) * self._scale
            return
        whole = self._array[order] if self._array.nbytes <= _GATHERED else None
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            x = self._array[positions] if whole is None else whole[start : start + batch_size]
            yield positions, x
