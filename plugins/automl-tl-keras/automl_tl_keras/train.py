"""Trains one trial: the head on stored features, then the layers above a cut with it."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from automl_tl.errors import TrialError
from automl_tl.training import loop
from automl_tl.training.micro import MicroBatches
from automl_tl.types import TrainFacts
from automl_tl_keras import head as heads
from automl_tl_keras.feed import Feed
from automl_tl_keras.model import save_model
from automl_tl_keras.runtime import is_out_of_memory, seeded
from automl_tl_keras.steps import Numbers, Part, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from keras import Variable
    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.training.loop import Epoch, Stage
    from automl_tl.types import Source, TrainJob
    from automl_tl_keras.network import Network
    from automl_tl_keras.steps import Stepper

_EVALUATION_BATCH = 64
_POOLED_BATCH = 4096
_FIRST_CALL = 8
_CALL_SECONDS = 0.2
"""Steps over resident features are taken in calls of about this long; between them, progress."""
_LOOK_EVERY = 8
"""Steps between two looks at the loss where looking means waiting for the device."""


class KerasTrainer:
    """Trains a ``TrainJob``; implements ``automl_tl.protocols.Trainer``.

    Shuffling, dropout and augmentation are keyed by (seed, phase, epoch), and frozen layers draw
    nothing, so that training from stored activations and from pixels is the same computation; on
    a CPU the same job repeats its numbers bit for bit.

    ``TrainFacts.total_parameters`` and ``trainable_parameters`` count parameters, BatchNorm's
    scale and shift among them but not its running statistics (Keras's ``count_params`` less
    ``moving_mean`` and ``moving_variance``).

    Args:
        job: What to train.
        network: Returns the backbone with the weights it was built with; called only when a layer
            has to run or the model is saved. After ``run`` it has these weights again.
        stepper: Takes the steps; may serve other trainers before and after, not at once.
        device: Where it computes.
    """

    def __init__(
        self, job: TrainJob, network: Callable[[], Network], stepper: Stepper, device: str
    ) -> None:
        self.job = job
        self._build = network
        self._network: Network | None = None
        self._stepper = stepper
        self._device = device
        self._shape = job.info.cuts[-1].shape
        self._layers = len(job.info.layers)
        self._sizes = heads.sizes(job.head, self._shape)
        self._arrays: dict[Any, Any] = {}
        self._labels: Any = None
        self._micro = MicroBatches(job.batch_size, is_out_of_memory)
        evaluated = max(_EVALUATION_BATCH, job.batch_size)
        self._evaluation = MicroBatches(evaluated, is_out_of_memory)
        self._snapshot: dict[str, NDArray[np.generic]] = {}
        self._states: dict[str, Variable] = {}
        if job.head_weights is not None:
            self._snapshot = {f"head.{name}": value for name, value in heads.start(job).items()}
        self._hold = True
        self._tunes = False
        self._call = _FIRST_CALL

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises.

        Raises:
            TrialError: The loss is no longer finite, or the device's memory too small.
        """
        job = self.job
        try:
            self._stepper.load(heads.start(job))
            self._labels = self._stepper.place(job.train_labels)
            loop.train(job, self, progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise TrialError(
                f"out of memory on {self._device} ({str(error).splitlines()[0]}); choose a "
                "smaller backbone or a smaller image size."
            ) from error
        finally:
            self._arrays.clear()
            self._labels = None
            self._states = {}
            self._stepper.release()
            if self._network is not None:
                self._network.reset()
                self._network = None
        return self.facts()

    def facts(self) -> TrainFacts:
        """Return what is known so far; the last phase is the last one that began."""
        notes = (self._micro.note, self._evaluation.note and f"validation: {self._evaluation.note}")
        layers = sum(layer.parameters for layer in self.job.info.layers)
        return TrainFacts(
            total_parameters=layers + sum(heads.sizes(self.job.head, self._shape).values()),
            trainable_parameters=sum(self._sizes.values()),
            trainable_variables=len(self._sizes),
            device=self._device,
            precision=self._stepper.precision if self._tunes else "float32",
            notes=tuple(note for note in notes if note),
        )

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write all tensors as they were at the last reported epoch, as safetensors.

        Raises:
            TrialError: No epoch was reported yet.
            ExportError: The file cannot be written.
        """
        if not self._snapshot:
            raise TrialError(
                "the trial was stopped before its first epoch ended, so there is no model to "
                "save; give it more time."
            )
        tensors = {f"backbone.{name}": var for name, var in self._build().tensors().items()}
        frozen = {name: tensors[name] for name in tensors if name not in self._snapshot}
        save_model(path, {**_arrays(frozen), **self._snapshot}, metadata)

    def begin(self, stage: Stage) -> None:
        """Make the stage's layers trainable; see ``Steps``."""
        job = self.job
        weights = job.class_weights
        if weights is None:
            weights = np.ones(job.head.classes, np.float32)
        numbers = Numbers(
            job.weight_decay, job.head.scale, job.head.dropout, job.label_smoothing, weights
        )
        self._tunes = stage.fine_tune_at < self._layers
        network = self._built() if self._tunes else None
        plan = Plan(stage.optimizer, job.head.pooling, network, stage.fine_tune_at)
        self._stepper.begin(plan, numbers)
        self._sizes = heads.sizes(job.head, self._shape)
        if network is not None:
            tuned = network.trainable(stage.fine_tune_at)
            self._sizes |= {name: math.prod(var.shape) for name, var in tuned.items()}
            states = network.states(stage.fine_tune_at)
            self._states = {f"backbone.{name}": var for name, var in states.items()}
        # An array of its own for every epoch is read once, so there is no use in holding it.
        self._hold = len({source.path for source in stage.train}) == 1

    def train(self, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Take an epoch's steps; see ``Steps``."""
        feed = Feed(epoch.source, self._arrays if self._hold else {})
        own, general = np.random.SeedSequence(epoch.key).generate_state(2)
        self._stepper.seed(int(own) % 2**31)
        features = None
        if not self._tunes and epoch.source.cut == self._layers:
            features = feed.whole(self._stepper.place)
        with seeded(int(general), self._device):
            if features is None:
                yield from self._steps(feed, epoch)
            else:
                yield from self._sweeps(features, epoch)

    def validate(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of a source's images; see ``Steps``."""
        feed = Feed(source, self._arrays)
        batch_size = self._evaluation.batch_size if source.pooling is None else _POOLED_BATCH
        for positions in feed.batches(np.arange(len(feed)), batch_size):
            yield self._evaluation.fit(partial(self._evaluate, feed, positions))

    def remember(self) -> None:
        """Copy what was trained, and what moved with it; see ``Steps``."""
        self._snapshot |= self._stepper.values() | _arrays(self._states)

    def _sweeps(self, features: Any, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Train the head alone on resident features, many steps a call."""
        size, order, total, step = self.job.batch_size, epoch.order, 0.0, 0
        while step < len(epoch.rates):
            started = time.perf_counter()
            stop = min(step + self._call, len(epoch.rates))
            part, rates = order[step * size : stop * size], epoch.rates[step:stop]
            total += float(self._stepper.sweep(features, self._labels, part, size, rates))
            share = _CALL_SECONDS / (time.perf_counter() - started)
            self._call = max(1, round(self._call * min(share, 4)))
            step = stop
            yield min(stop * size, len(order)), total

    def _steps(self, feed: Feed, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Train step by step."""
        total: Any = 0.0
        done = 0
        batches = feed.batches(epoch.order, self.job.batch_size)
        for number, (positions, rate) in enumerate(zip(batches, epoch.rates, strict=True)):
            total += self._micro.fit(partial(self._backward, feed, positions))
            self._stepper.update(float(rate))
            done += len(positions)
            look = number % _LOOK_EVERY == 0 or done == len(epoch.order)
            yield done, float(total) if look or self._device == "cpu" else None

    def _backward(self, feed: Feed, positions: NDArray[np.int64]) -> Any:
        parts = [
            Part(
                feed.take(part) if self._tunes else self._forward(feed, part),
                self.job.train_labels[part],
            )
            for part in self._micro.parts(positions)
        ]
        return self._stepper.backward(feed.source.cut, parts)

    def _evaluate(self, feed: Feed, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = self._evaluation.parts(positions)
        return np.concatenate([self._stepper.logits(self._forward(feed, part)) for part in parts])

    def _forward(self, feed: Feed, positions: NDArray[np.int64]) -> Any:
        """Return what enters the head, from layers in inference mode."""
        x, start = feed.take(positions), feed.source.cut
        if start == self._layers:
            return x
        return self._stepper.forward(self._built(), start, self._layers, x)

    def _built(self) -> Network:
        if self._network is None:
            self._network = self._build()
        return self._network


def _arrays(variables: Mapping[str, Variable]) -> dict[str, NDArray[np.generic]]:
    return {name: np.array(ops.convert_to_numpy(var)) for name, var in variables.items()}
