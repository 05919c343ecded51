"""A job's training, shared out: the head's warm-up here, everything else in the backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from automl_tl.errors import TrialError
from automl_tl.training.together import fits, head_facts, train_together

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.protocols import Backend, Progress, Trainer
    from automl_tl.types import TrainFacts, TrainJob


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
        self._weights: tuple[NDArray[np.float32], ...] | None = None
        self._rest: Trainer | None = None

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises; see ``Trainer``."""
        job = self._job
        if fits(job) and job.warmup.epochs and job.head_weights is None:
            (ending,) = train_together([job], [progress])
            self._weights = ending.weights
            if ending.error:
                raise ending.error
            if not job.fine_tuning.epochs:
                return self.facts()
            job = replace(job, head_weights=self._weights)
        self._rest = self._backend.trainer(job)
        return self._rest.run(progress)

    def facts(self) -> TrainFacts:
        """See ``Trainer``."""
        if self._rest:
            return self._rest.facts()
        return head_facts(self._job)

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """See ``Trainer``.

        Raises:
            TrialError: When no epoch was reported yet.
        """
        if self._rest:
            self._rest.save(path, metadata)
            return
        if self._weights is None:
            raise TrialError(
                "the trial was stopped before its first epoch ended, so there is no model to "
                "save; give it more time."
            )
        job = self._job
        self._backend.assemble(job.network, job.head, self._weights, path, metadata)
