"""A job's training, shared out: the head's warm-up here, everything else in the backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from automl_tl.errors import TrialError
from automl_tl.training import heads
from automl_tl.training.head_trainer import HeadTrainer, fits
from automl_tl.types import PhaseSpec, TrainFacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.protocols import Backend, Progress, Trainer
    from automl_tl.types import TrainJob


class SplitTrainer:
    """Implements ``automl_tl.protocols.Trainer``; asks the backend only for what it must do.

    A frozen trial on stored features never calls the backend, unless its model is saved.

    Args:
        job: What to train.
        backend: Trains the layers, and heads that are large or need more than stored vectors.
    """

    def __init__(self, job: TrainJob, backend: Backend) -> None:
        self._job = job
        self._backend = backend
        self._head = HeadTrainer(job) if fits(job) else None
        self._rest: Trainer | None = None

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises; see ``Trainer``."""
        if self._head:
            self._head.run(progress)
            if not self._job.fine_tuning.epochs:
                return self.facts()
        self._rest = self._backend.trainer(
            replace(self._job, head_weights=self._head.weights) if self._head else self._job
        )
        return self._rest.run(progress)

    def facts(self) -> TrainFacts:
        """See ``Trainer``."""
        if self._rest:
            return self._rest.facts()
        head = heads.parameters(self._job.head, self._job.info.features)
        return TrainFacts(
            total_parameters=sum(layer.parameters for layer in self._job.info.layers) + head,
            trainable_parameters=head,
            trainable_variables=2 * len(self._job.head.units) + 2,
            device="cpu",
            precision="float32",
        )

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """See ``Trainer``.

        Raises:
            TrialError: When no epoch was reported yet.
        """
        trainer = self._rest
        if trainer is None:
            weights = self._head.weights if self._head else None
            if weights is None:
                raise TrialError(
                    "the trial was stopped before its first epoch ended, so there is no model to "
                    "save; give it more time."
                )
            frozen = replace(
                self._job,
                head_weights=weights,
                fine_tuning=PhaseSpec(0, self._job.fine_tuning.learning_rate),
            )
            trainer = self._backend.trainer(frozen)
        trainer.save(path, metadata)
