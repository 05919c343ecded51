"""Trains one trial: the head on stored features, then the layers above a cut with it."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from automl_tl import schedules
from automl_tl.errors import TrialError
from automl_tl.types import EpochReport, TrainFacts
from automl_tl_torch import optim, precision
from automl_tl_torch.data import Feed, shuffled
from automl_tl_torch.head import HeadModule
from automl_tl_torch.model import save_model
from automl_tl_torch.step import Loss, MicroBatches, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from automl_tl.protocols import Progress
    from automl_tl.types import Phase, PhaseSpec, Source, TrainJob
    from automl_tl_torch.network import Network

_EVALUATION_BATCH = 64
_POOLED_BATCH = 4096
_CHECK_EVERY = 8
"""Steps between two looks at the loss where looking means waiting for the device."""


@dataclass(frozen=True)
class _Plan:
    """One phase: what it trains, on what."""

    number: int
    name: Phase
    spec: PhaseSpec
    fine_tune_at: int
    train: tuple[Source, ...]
    validation: Source
    epochs_before: int


class TorchTrainer:
    """Trains a ``TrainJob``; implements ``automl_tl.protocols.Trainer``.

    Shuffling, dropout and augmentation are keyed by (seed, phase, epoch), and frozen layers draw
    nothing, so that training from stored activations and from pixels is the same computation; on
    a CPU the same job repeats its numbers bit for bit. The layers run in bfloat16 (float16 with
    loss scaling on old devices) on CUDA and in float32 elsewhere, the head always in float32.

    ``TrainFacts.total_parameters`` and ``trainable_parameters`` count parameters, BatchNorm's
    scale and shift among them but not its running statistics (Keras's ``count_params`` less
    ``moving_mean`` and ``moving_variance``).

    Args:
        job: What to train.
        network: Returns the backbone with the weights it starts from; called only when a layer
            has to run or the model is saved, and then once. It is modified.
        device: Where to train.
    """

    def __init__(self, job: TrainJob, network: Callable[[], Network], device: torch.device) -> None:
        self.job = job
        self.device = device
        self.head = HeadModule(job.head, job.info.cuts[-1].shape, job.seed).to(device)
        self._build = network
        self._network: Network | None = None
        self._segments: dict[int, nn.Module] = {}
        self._arrays: dict[Any, Tensor] = {}
        self._dtype = precision.choose(device)
        self._micro = MicroBatches(job.batch_size)
        self._evaluation = MicroBatches(max(_EVALUATION_BATCH, job.batch_size))
        self._trained: dict[str, nn.Parameter] = self._head_parameters()
        self._snapshot: dict[str, Tensor] = {}
        self._reported = False

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises.

        Raises:
            TrialError: The loss is no longer finite, or the device's memory too small.
        """
        try:
            for plan in self._plans():
                self._train(plan, progress)
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
            raise TrialError(
                f"out of memory on {self.device} ({reason}); choose a smaller backbone or a "
                "smaller image size."
            ) from error
        finally:
            self._arrays.clear()
            for parameter in self._trained.values():
                parameter.grad = None
        return self.facts()

    def facts(self) -> TrainFacts:
        """Return what is known so far; the last phase is the last one that began."""
        head = sum(parameter.numel() for parameter in self.head.parameters())
        ran_layers = self._dtype if self._segments else torch.float32
        notes = (self._micro.note, self._evaluation.note and f"validation: {self._evaluation.note}")
        return TrainFacts(
            total_parameters=sum(layer.parameters for layer in self.job.info.layers) + head,
            trainable_parameters=sum(tensor.numel() for tensor in self._trained.values()),
            trainable_variables=len(self._trained),
            device=str(self.device),
            precision=precision.name(ran_layers),
            notes=tuple(note for note in notes if note),
        )

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write all tensors as they were at the last reported epoch, as safetensors.

        Raises:
            TrialError: No epoch was reported yet.
            ExportError: The file cannot be written.
        """
        if not self._reported:
            raise TrialError(
                "the trial was stopped before its first epoch ended, so there is no model to "
                "save; give it more time."
            )
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        for name, value in self._built().module.state_dict().items():
            tensors[f"backbone.{name}"] = value
        save_model(path, {**tensors, **self._snapshot}, metadata)

    def _plans(self) -> Iterator[_Plan]:
        job, layers = self.job, len(self.job.info.layers)
        if job.warmup.epochs:
            yield _Plan(0, "warm-up", job.warmup, layers, (job.head_train,), job.head_validation, 0)
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
            yield _Plan(1, "fine-tuning", job.fine_tuning, at, train, validation, before)

    def _train(self, plan: _Plan, progress: Progress) -> None:
        job = self.job
        layers = len(job.info.layers)
        cuts = [source.cut for source in (*plan.train, plan.validation)]
        if min(plan.fine_tune_at, *cuts) < layers:
            self._built().freeze(plan.fine_tune_at)
        tuned = self._layer_parameters(plan.fine_tune_at)
        # Stopped before the phase's first report, the layers are still as they were.
        self._remember(tuned)
        self._trained = self._head_parameters() | tuned
        peak = plan.spec.learning_rate
        step = Step(
            optim.create(job.optimizer, self._trained.values(), peak, job.weight_decay),
            Loss(job, self.device),
            self._micro,
            torch.amp.GradScaler("cuda", enabled=self._dtype == torch.float16),
        )
        for epoch in range(plan.spec.epochs):
            report = self._epoch(plan, epoch, step, progress)
            self._remember(self._trained)
            self._reported = True
            progress.epoch(report)

    def _epoch(self, plan: _Plan, epoch: int, step: Step, progress: Progress) -> EpochReport:
        started = time.perf_counter()
        job = self.job
        source = plan.train[epoch % len(plan.train)]
        for needed in (source, plan.validation):
            progress.need(needed)
        # An array of its own for every epoch is read once, so there is no use in holding it.
        held = self._arrays if len({source.path for source in plan.train}) == 1 else {}
        feed = Feed(source, self.device, held)
        validation = Feed(plan.validation, self.device, self._arrays)
        images, everything = len(feed), len(feed) + len(validation)
        steps = math.ceil(images / job.batch_size)
        key = [job.seed, plan.number, epoch]
        order = shuffled(images, np.random.default_rng(key))
        total = torch.zeros((), device=self.device)
        rate = plan.spec.learning_rate
        done = 0
        self.head.train()
        if self._network is not None:
            self._network.freeze(plan.fine_tune_at)
        with _random(key, self.device):
            for number, positions in enumerate(feed.batches(order, job.batch_size)):
                rate = schedules.learning_rate(
                    job.schedule,
                    plan.spec.learning_rate,
                    epoch * steps + number,
                    plan.spec.epochs * steps,
                )
                total += step(partial(self._logits, feed), positions, rate)
                done += len(positions)
                if self.device.type != "cuda" or number % _CHECK_EVERY == 0 or done == images:
                    _check(math.isfinite(total), "loss", plan, epoch)
                progress.step(plan.name, done, everything)
        logits = self._validate(
            validation, lambda seen: progress.step(plan.name, images + seen, everything)
        )
        _check(bool(np.isfinite(logits).all()), "validation logits", plan, epoch)
        return EpochReport(
            phase=plan.name,
            epoch=plan.epochs_before + epoch,
            epochs=job.warmup.epochs + job.fine_tuning.epochs,
            train_loss=float(total) / images,
            validation_logits=logits,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )

    def _validate(self, feed: Feed, seen: Callable[[int], None]) -> NDArray[np.float32]:
        """Return float32 ``(n, classes)``."""
        self.head.eval()
        if self._network is not None:
            self._network.eval()
        pooled = feed.source.pooling is not None
        batch_size = _POOLED_BATCH if pooled else self._evaluation.batch_size
        logits = []
        with torch.inference_mode():
            for positions in feed.batches(np.arange(len(feed)), batch_size):
                logits.append(self._evaluation.fit(partial(self._evaluate, feed, positions)))
                seen(sum(map(len, logits)))
        return torch.cat(logits).float().cpu().numpy()

    def _evaluate(self, feed: Feed, positions: NDArray[np.int64]) -> Tensor:
        if feed.source.pooling is not None:
            return self._logits(feed, positions)
        return torch.cat([self._logits(feed, part) for part in self._evaluation.parts(positions)])

    def _logits(self, feed: Feed, positions: NDArray[np.int64]) -> Tensor:
        """Run everything above a source over some of its images."""
        x = feed.take(positions)
        start, stop = feed.source.cut, len(self.job.info.layers)
        if start < stop:
            if start not in self._segments:
                self._segments[start] = self._built().segment(start, stop)
            with precision.autocast(self.device, self._dtype):
                x = self._segments[start](x)
        logits: Tensor = self.head(x)
        return logits

    def _built(self) -> Network:
        if self._network is None:
            self._network = self._build()
        return self._network

    def _head_parameters(self) -> dict[str, nn.Parameter]:
        return {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def _layer_parameters(self, fine_tune_at: int) -> dict[str, nn.Parameter]:
        if fine_tune_at == len(self.job.info.layers):
            return {}
        named = self._built().module.named_parameters()
        return {f"backbone.{name}": tensor for name, tensor in named if tensor.requires_grad}

    def _remember(self, parameters: Mapping[str, nn.Parameter]) -> None:
        for name, tensor in parameters.items():
            self._snapshot[name] = tensor.detach().to("cpu", copy=True)


@contextmanager
def _random(key: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seed torch's generators from a key, and put them back afterwards."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _check(finite: bool, what: str, plan: _Plan, epoch: int) -> None:
    if not finite:
        raise TrialError(
            f"the {what} became NaN or infinite in epoch {epoch + 1} of {plan.spec.epochs} of the "
            f"{plan.name}; try a lower learning rate."
        )
