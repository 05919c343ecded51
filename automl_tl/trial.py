"""One trial from its parameters to its figures: plan, train, measure. Knows no Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import metrics
from automl_tl.cache.activations import Activations
from automl_tl.errors import AutoMLError, FinishTraining, TrialError
from automl_tl.jobs import fine_tune_at, make_job, make_views
from automl_tl.machine import memory
from automl_tl.networks import describe, input_id
from automl_tl.outcome import Hooks, Outcome, TrialProgress
from automl_tl.planner import Limits, Outlook, Speeds, Work, frozen_plan, head_tap, plan
from automl_tl.prospects import Prospects
from automl_tl.speeds import store_speeds
from automl_tl.training.head import parameters
from automl_tl.training.heads import apply
from automl_tl.training.split import SplitTrainer
from automl_tl.training.together import LARGEST, Ending, head_facts, train_together
from automl_tl.types import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.cache.activations import NeedPixels
    from automl_tl.cache.store import Store
    from automl_tl.host import BackendHost
    from automl_tl.networks import Networks
    from automl_tl.planner import Plan, Tap
    from automl_tl.protocols import Trainer
    from automl_tl.space import TrialSpec
    from automl_tl.study_data import StudyData
    from automl_tl.types import NetworkInfo, NetworkSpec, Split, TrainFacts, TrainJob


UNKNOWN_SPEED = 2.0**34
"""Multiply-adds a second of a network of which no pass was timed."""
_ROOM_SHARE = 4
"""One trial stores at most this part of the cache."""
_MEMORY_SHARE = 8
"""An array in at most this part of the RAM counts as held there."""


@dataclass(slots=True)
class _Prepared:
    """A trial that is ready to be trained."""

    job: TrainJob
    host: BackendHost
    progress: TrialProgress


class TrialRunner:
    """Runs trials of one study on one device.

    Args:
        data: The study's data.
        metric: What is optimised.
        seed: Of the head's weights, dropout, shuffling and augmentation.
        networks: The study's networks and pixel arrays.
        store: The cache.
        host: Returns the process of a backend.
        need_pixels: See ``Activations``.
        threads: CPU threads, for heads that are trained in this process.

    Attributes:
        slowest: Most seconds an image that frozen layers took so far.
        prospects: What later trials are expected to be.
    """

    def __init__(
        self,
        data: StudyData,
        metric: str,
        seed: int,
        networks: Networks,
        store: Store,
        host: Callable[[str], BackendHost],
        need_pixels: NeedPixels,
        threads: int = 1,
    ) -> None:
        self._data = data
        self._metric = metric
        self._seed = seed
        self._networks = networks
        self._store = store
        self._host = host
        self._need_pixels = need_pixels
        self._threads = threads
        self._train = data.rows("train")
        self._validation = data.rows("validation")
        self._labels = data.labels[self._validation]
        self._activations: dict[tuple[NetworkSpec, Path], Activations] = {}
        self._infos: dict[NetworkSpec, NetworkInfo] = {}
        self.slowest = 0.0
        self.prospects = Prospects(len(networks.specs))

    def run(self, spec: TrialSpec, hooks: Hooks) -> Outcome:
        """Run a trial.

        Raises:
            PruneTraining: When ``hooks.epoch`` said so.
            FinishTraining: When a hook said so before the first epoch ended.
            TrialError: When it failed.
        """
        prepared = self._prepare(spec, hooks)
        trainer = SplitTrainer(prepared.job, prepared.host)
        stopped = None
        try:
            facts = trainer.run(prepared.progress)
        except FinishTraining as stop:
            stopped, facts = stop, trainer.facts()
        return self._outcome(prepared, facts, trainer, stopped)

    def shared(self, spec: TrialSpec) -> object | None:
        """Return what trials have in common that can be run together; None for one that cannot.

        Together run heads on the same stored features.
        """
        if not spec.frozen or spec.pooling == "flatten":
            return None
        try:
            network, info = self._described(spec)
        except AutoMLError:  # the trial itself will say what is wrong
            return None
        if parameters(Head(len(self._data.classes), spec.head_units), info.features) > LARGEST:
            return None
        return network, self._networks.pixels(spec), spec.pooling

    def run_together(
        self, specs: Sequence[TrialSpec], hooks: Sequence[Hooks]
    ) -> list[Outcome | AutoMLError]:
        """Run trials that have the same ``shared``, each to the numbers that it would reach alone.

        Returns:
            What came of each, or what ``run`` would have raised.
        """
        found: list[_Prepared | AutoMLError] = []
        for spec, hook in zip(specs, hooks, strict=True):
            try:
                found.append(self._prepare(spec, hook))
            except AutoMLError as error:
                found.append(error)
        ready = [one for one in found if isinstance(one, _Prepared)]
        endings: list[Ending] = []
        if ready:
            jobs = [one.job for one in ready]
            endings = train_together(jobs, [one.progress for one in ready], self._threads)
        ended = iter(endings)
        return [
            self._ended(one, next(ended)) if isinstance(one, _Prepared) else one for one in found
        ]

    def head_logits(
        self,
        spec: TrialSpec,
        head: Head,
        weights: Sequence[NDArray[np.float32]],
        split: Split,
        step: Callable[[str, int, int], None],
    ) -> NDArray[np.float32]:
        """Return the logits ``(n, classes)`` of a trained head on a frozen network.

        Args:
            spec: Of its trial.
            head: The head.
            weights: Its weights.
            split: Whose images.
            step: Told what is computed, as ``Hooks.step``.

        Raises:
            AutoMLError: When the features cannot be computed.
        """
        network, info = self._described(spec)
        host = self._host(network.backbone.partition("/")[0])
        activations = self._activations_of(network, info, spec, host)
        tap = head_tap(info, spec.pooling, 0, 0)
        source = activations.source(self._data.rows(split), tap)
        progress = TrialProgress(self._labels, self._metric, activations, Hooks(step=step))
        progress.need(source)
        return apply(weights, np.load(source.path) * np.float32(head.scale))

    def _ended(self, prepared: _Prepared, ending: Ending) -> Outcome | AutoMLError:
        stop = ending.error
        if stop is not None and not isinstance(stop, FinishTraining):
            return stop
        if ending.weights is None:
            return stop or TrialError("The head ended without reporting an epoch.")
        try:
            return self._outcome(prepared, head_facts(prepared.job), ending.weights, stop)
        except AutoMLError as error:
            return error

    def _outcome(
        self,
        prepared: _Prepared,
        facts: TrainFacts,
        trained: Trainer | tuple[NDArray[np.float32], ...],
        stopped: FinishTraining | None,
    ) -> Outcome:
        progress = prepared.progress
        if progress.logits is None:
            raise stopped or TrialError("The backend finished without reporting an epoch.")
        return Outcome(
            value=progress.history[-1]["value"],
            validation=metrics.from_logits(progress.logits, self._labels),
            logits=progress.logits,
            history=progress.history,
            facts=facts,
            head_scale=prepared.job.head.scale,
            trained=trained,
            stopped=str(stopped) if stopped else None,
            reuse=progress.reuse,
        )

    def _described(self, spec: TrialSpec) -> tuple[NetworkSpec, NetworkInfo]:
        network = self._networks.network(spec)
        if network not in self._infos:
            host = self._host(network.backbone.partition("/")[0])
            self._infos[network] = describe(network, host, self._store)
        return network, self._infos[network]

    def _prepare(self, spec: TrialSpec, hooks: Hooks) -> _Prepared:
        """Plan a trial, and have the features computed that its head sees."""
        network, info = self._described(spec)
        host = self._host(network.backbone.partition("/")[0])
        at = fine_tune_at(spec, info)
        activations = self._activations_of(network, info, spec, host)
        progress = TrialProgress(self._labels, self._metric, activations, hooks)
        images = len(self._train) + len(self._validation)
        head = head_tap(info, spec.pooling, images, self._room)
        scale, speed = self._features(head, activations, progress)
        self.slowest = max(self.slowest, progress.reuse.slowest)
        planned = frozen_plan(head)
        if at < len(info.layers):
            planned = self._plan(spec, info, at, head, speed, activations, progress)
        hooks.planned(info, at, planned)
        on_top = Head(len(self._data.classes), spec.head_units, spec.dropout, spec.pooling, scale)
        progress.job = make_job(
            spec, self._data, network, info, on_top, planned, activations, self._seed
        )
        return _Prepared(progress.job, host, progress)

    def _activations_of(
        self, network: NetworkSpec, info: NetworkInfo, spec: TrialSpec, host: BackendHost
    ) -> Activations:
        pixels, pixels_id = self._networks.pixels(spec)
        seen = input_id(pixels_id, spec.backbone)
        return self._activations.setdefault(
            (network, pixels),
            Activations(self._store, host, network, info, pixels, seen, self._need_pixels),
        )

    def _features(
        self, head: Tap, activations: Activations, progress: TrialProgress
    ) -> tuple[float, float | None]:
        """Have the features computed that the head sees.

        Returns:
            Their scale, and the multiply-adds a second of the network, if known; 1 and None where
            they are not stored.
        """
        if head.cut == 0:
            return 1.0, None
        features = activations.source(self._train, head)
        activations.ensure(features, progress, progress.reuse)
        return activations.scale(features), activations.forward_speed(features)

    def _plan(
        self,
        spec: TrialSpec,
        info: NetworkInfo,
        at: int,
        head: Tap,
        speed: float | None,
        activations: Activations,
        progress: TrialProgress,
    ) -> Plan:
        """Plan from where a trial is fine-tuned."""
        augmented = spec.augmentation > 0
        work = Work(len(self._train), len(self._validation), at, spec.epochs, augmented)
        views = make_views(spec, self._seed)
        outlook = Outlook(
            stored=lambda tap: activations.share(self._train, tap, views),
            later=lambda cut: self.prospects.later(spec, cut.index),
            price=self._store.price,
            halves=lambda cut: activations.halves(self._train, cut.index, progress),
        )
        speeds = Speeds(speed or UNKNOWN_SPEED, **store_speeds(self._store))
        limits = Limits(self._room, memory().total // _MEMORY_SHARE)
        return plan(info, work, head, speeds, limits, outlook)

    @property
    def _room(self) -> int:
        return self._store.max_bytes // _ROOM_SHARE
