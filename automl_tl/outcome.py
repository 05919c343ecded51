"""What is told of a trial while it runs, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from automl_tl import metrics
from automl_tl.cache.activations import Activations, Reuse
from automl_tl.training.loop import sources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.planner import Plan
    from automl_tl.protocols import Trainer
    from automl_tl.types import EpochReport, NetworkInfo, Source, TrainFacts, TrainJob


@dataclass(slots=True)
class Hooks:
    """What the trial's owner wants to hear and say while it runs.

    Attributes:
        planned: Called once with the network and the plan.
        epoch: Called with every epoch's report, the metric's value and the seconds that an epoch
            takes once its arrays are there; may raise.
        step: Called with what is computed, images done and images in all; may raise.
    """

    planned: Callable[[NetworkInfo, int, Plan], None] = lambda info, at, plan: None
    epoch: Callable[[EpochReport, float, float], None] = lambda report, value, seconds: None
    step: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass(slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        value: The metric on the validation split at the last epoch.
        validation: All metrics there.
        logits: float32 ``(n_validation, classes)``.
        history: One entry an epoch.
        facts: Of the training.
        head_scale: What the head multiplies its features by.
        trained: What saves the model, or the weights of a head on a frozen network.
        stopped: Why it was stopped before its last epoch; None when it was not.
        reuse: What was computed of frozen layers and what was found.
    """

    value: float
    validation: Mapping[str, Any]
    logits: NDArray[np.float32]
    history: list[dict[str, Any]]
    facts: TrainFacts
    head_scale: float
    trained: Trainer | tuple[NDArray[np.float32], ...]
    stopped: str | None
    reuse: Reuse


@dataclass(slots=True)
class TrialProgress:
    """Turns what the backend says into metrics, history and calls of the hooks.

    Attributes:
        labels: int64, of the validation split.
        metric: What is optimised.
        activations: Of the trial's network.
        hooks: Of the trial's owner.
        job: What is trained; set before the first epoch.
        reuse: What was computed of frozen layers and what was found.
        history: One entry an epoch.
        logits: Of the last epoch.
        filling: Seconds of the running epoch that went into computing arrays.
    """

    labels: NDArray[np.int64]
    metric: str
    activations: Activations
    hooks: Hooks
    job: TrainJob | None = None
    reuse: Reuse = field(default_factory=Reuse)
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: NDArray[np.float32] | None = None
    filling: float = 0.0

    def need(self, source: Source) -> None:
        """Have an array computed; see ``Progress``."""
        started = time.monotonic()
        self.activations.ensure(source, self, self.reuse)
        self.filling += time.monotonic() - started

    def epoch(self, report: EpochReport) -> None:
        """Measure an epoch and hand it on; see ``Progress``."""
        value = metrics.value(report.validation_logits, self.labels, self.metric)
        self.logits = report.validation_logits
        self.history.append(
            {
                "epoch": report.epoch,
                "phase": report.phase,
                "value": value,
                "train_loss": report.train_loss,
                "learning_rate": report.learning_rate,
                "seconds": round(report.seconds, 4),
            }
        )
        assert self.job is not None, "epochs are those of a job"
        for source in sources_of(self.job, report):
            self.activations.read(source, self.reuse)
        training, self.filling = max(0.0, report.seconds - self.filling), 0.0
        self.hooks.epoch(report, value, training)

    def step(self, what: str, done: int, total: int) -> None:
        """Hand it on; see ``Progress``."""
        self.hooks.step(what, done, total)
