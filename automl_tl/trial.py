"""One trial from its parameters to its figures: plan, train, measure. Knows no Optuna."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import layers, metrics
from automl_tl.cache.activations import Activations, Reuse
from automl_tl.errors import FinishTraining, TrialError
from automl_tl.networks import describe
from automl_tl.planner import GPU_RATES, Plan, Rates, Work, plan
from automl_tl.plugins import get_plugins
from automl_tl.training.split import SplitTrainer
from automl_tl.types import Head, PhaseSpec, TrainFacts, TrainJob, View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.host import BackendHost
    from automl_tl.networks import Networks
    from automl_tl.protocols import Trainer
    from automl_tl.space import TrialSpec
    from automl_tl.study import StudyData
    from automl_tl.types import EpochReport, NetworkInfo, NetworkSpec, Source


@dataclass(slots=True)
class Hooks:
    """What the trial's owner wants to hear and say while it runs.

    Attributes:
        planned: Called once with the network and the plan.
        epoch: Called with every epoch's report, the metric's value and the seconds that an epoch
            takes once its arrays are there; may raise.
        step: Called with what is computed, images done and images in all; may raise.
    """

    planned: Callable[[NetworkInfo, int, Plan], None]
    epoch: Callable[[EpochReport, float, float], None]
    step: Callable[[str, int, int], None]


@dataclass(slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        value: The metric on the validation split at the last epoch.
        validation: All metrics there.
        logits: float32 ``(n_validation, classes)``.
        history: One entry an epoch.
        facts: Of the trainer.
        head_scale: What the head multiplies its features by.
        trainer: Still holds the model.
        stopped: Why it was stopped before its last epoch; None when it was not.
        reuse: What was computed of frozen layers and what was found.
    """

    value: float
    validation: Mapping[str, Any]
    logits: NDArray[np.float32]
    history: list[dict[str, Any]]
    facts: TrainFacts
    head_scale: float
    trainer: Trainer
    stopped: str | None
    reuse: Reuse


@dataclass(slots=True)
class _Progress:
    """Turns what the backend says into metrics, history and calls of the hooks."""

    labels: NDArray[np.int64]
    metric: str
    activations: Activations
    hooks: Hooks
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: NDArray[np.float32] | None = None
    filling: float = 0.0

    def need(self, source: Source) -> None:
        started = time.monotonic()
        self.activations.ensure(source, self)
        self.filling += time.monotonic() - started

    def epoch(self, report: EpochReport) -> None:
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
        training, self.filling = max(0.0, report.seconds - self.filling), 0.0
        self.hooks.epoch(report, value, training)

    def step(self, what: str, done: int, total: int) -> None:
        self.hooks.step(what, done, total)


class TrialRunner:
    """Runs trials of one study on one device, one after the other.

    Args:
        data: The study's data.
        metric: What is optimised.
        seed: Of the head's weights, dropout, shuffling and augmentation.
        networks: The study's networks and pixel arrays.
        store: The cache.
        host: Returns the process of a backend.

    Attributes:
        reuse: Of the trial that runs, or ran last.
    """

    def __init__(
        self,
        data: StudyData,
        metric: str,
        seed: int,
        networks: Networks,
        store: Store,
        host: Callable[[str], BackendHost],
    ) -> None:
        self._data = data
        self._metric = metric
        self._seed = seed
        self._networks = networks
        self._store = store
        self._host = host
        self._train = data.rows("train")
        self._validation = data.rows("validation")
        self._activations: dict[tuple[NetworkSpec, Path], Activations] = {}
        self.reuse = Reuse()

    def run(self, spec: TrialSpec, hooks: Hooks) -> Outcome:
        """Run a trial.

        Raises:
            PruneTraining: When ``hooks.epoch`` said so.
            FinishTraining: When a hook said so before the first epoch ended.
            TrialError: When it failed.
        """
        network = self._networks.network(spec)
        host = self._host(network.backbone.partition("/")[0])
        info = describe(network, host, self._store)
        at = self.fine_tune_at(spec, info)
        epochs = 0 if at == len(info.layers) else spec.epochs
        planned = plan(
            info,
            Work(
                train=len(self._train),
                validation=len(self._validation),
                fine_tune_at=at,
                pooling=spec.pooling,
                tune_epochs=epochs,
                augmented=spec.augmentation > 0,
            ),
            self._store.max_bytes // 4,
            GPU_RATES if host.chosen.startswith("cuda") else Rates(),
        )
        hooks.planned(info, at, planned)
        pixels, pixels_id = self._networks.pixels(spec)
        plugins = get_plugins()
        backbone = plugins.backbone(spec.backbone)
        input_id = f"{pixels_id}/{backbone.preprocess}/{plugins.provider(spec.backbone)}"
        activations = self._activations.setdefault(
            (network, pixels),
            Activations(self._store, host, network, info, pixels, input_id),
        )
        self.reuse = activations.reuse = Reuse()
        labels = self._data.labels[self._validation]
        progress = _Progress(labels, self._metric, activations, hooks)
        scale = self._head_scale(planned, activations, progress)
        head = Head(len(self._data.classes), spec.head_units, spec.dropout, spec.pooling, scale)
        job = self._job(spec, network, info, head, at, planned, activations)
        trainer = SplitTrainer(job, host)
        stopped = None
        try:
            facts = trainer.run(progress)
        except FinishTraining as stop:
            if progress.logits is None:
                raise
            stopped = str(stop)
            facts = trainer.facts()
        if progress.logits is None:
            raise TrialError("The backend finished without reporting an epoch.")
        return Outcome(
            value=progress.history[-1]["value"],
            validation=metrics.from_logits(progress.logits, labels),
            logits=progress.logits,
            history=progress.history,
            facts=facts,
            head_scale=scale,
            trainer=trainer,
            stopped=stopped,
            reuse=activations.reuse,
        )

    def fine_tune_at(self, spec: TrialSpec, info: NetworkInfo) -> int:
        """Return the index of the first layer that trains."""
        if spec.fine_tune_at is not None:
            return layers.at_layer(info, spec.fine_tune_at, spec.backbone)
        return layers.at_depth(info, spec.depth or 0.0)

    def _head_scale(self, planned: Plan, activations: Activations, progress: _Progress) -> float:
        """Return the scale of the head's input, 1 where its features are not stored."""
        if planned.head.cut == 0:
            return 1.0
        features = activations.source(self._train, planned.head)
        activations.ensure(features, progress)
        return activations.scale(features)

    def _job(
        self,
        spec: TrialSpec,
        network: NetworkSpec,
        info: NetworkInfo,
        head: Head,
        at: int,
        planned: Plan,
        activations: Activations,
    ) -> TrainJob:
        frozen = planned.tune is None
        tune_train: tuple[Source, ...] = ()
        tune_validation = None
        if planned.tune:
            views: list[View | None] = [
                View(spec.augmentation, self._seed, index, spec.flip)
                for index in range(planned.views)
            ]
            tune_train = tuple(
                activations.source(self._train, planned.tune, view) for view in views or [None]
            )
            tune_validation = activations.source(self._validation, planned.tune)
        return TrainJob(
            network=network,
            info=info,
            head=head,
            fine_tune_at=at,
            warmup=PhaseSpec(
                spec.warmup_epochs + (spec.epochs if frozen else 0), spec.learning_rate
            ),
            fine_tuning=PhaseSpec(
                0 if frozen else spec.epochs, spec.learning_rate * spec.fine_tune_factor
            ),
            optimizer=spec.optimizer,
            schedule=spec.schedule,
            weight_decay=spec.weight_decay,
            batch_size=spec.batch_size,
            label_smoothing=spec.label_smoothing,
            class_weights=self._class_weights(spec),
            seed=self._seed,
            train_labels=self._data.labels[self._train],
            head_train=activations.source(self._train, planned.head),
            head_validation=activations.source(self._validation, planned.head),
            tune_train=tune_train,
            tune_validation=tune_validation,
        )

    def _class_weights(self, spec: TrialSpec) -> NDArray[np.float32] | None:
        if spec.class_weights == "none":
            return None
        counts = np.bincount(self._data.labels[self._train], minlength=len(self._data.classes))
        weights: NDArray[np.float64] = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return weights.astype(np.float32)
