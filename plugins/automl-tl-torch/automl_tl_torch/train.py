"""Trains one trial: the head on stored features, then the layers above a cut with it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from automl_tl.errors import TrialError
from automl_tl.training import loop
from automl_tl.types import TrainFacts
from automl_tl_torch import device as devices
from automl_tl_torch import optim, precision
from automl_tl_torch.capture import Replays, recordable
from automl_tl_torch.data import Feed, Indices
from automl_tl_torch.head import HeadModule
from automl_tl_torch.model import save_model
from automl_tl_torch.step import Loss, Step, micro_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.protocols import Progress
    from automl_tl.training.loop import Epoch, Stage
    from automl_tl.types import Source, TrainJob
    from automl_tl_torch.network import Network

_EVALUATION_BATCH = 64
_POOLED_BATCH = 4096
_LOOK_EVERY = 32
"""Steps between two looks at the loss where looking means waiting for the device."""


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
        self.head = HeadModule(job.head, job.info.cuts[-1].shape, job.seed, job.head_weights).to(
            device
        )
        self._build = network
        self._network: Network | None = None
        self._segments: dict[int, nn.Module] = {}
        self._arrays: dict[Any, Tensor] = {}
        self._dtype = precision.choose(device)
        self._indices = Indices(device)
        self._micro = micro_batches(job.batch_size)
        self._evaluation = micro_batches(max(_EVALUATION_BATCH, job.batch_size))
        self._trained: dict[str, nn.Parameter] = self._head_parameters()
        # By the parameter, which may have several names.
        self._snapshot: dict[Tensor, Tensor] = {}
        self._savable = job.head_weights is not None
        self._fine_tune_at = len(job.info.layers)
        self._hold = True
        self._step: Step | None = None

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises.

        Raises:
            TrialError: The loss is no longer finite, or the device's memory too small.
        """
        devices.begin_measuring(self.device)
        try:
            loop.train(self.job, self, progress)
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
            raise TrialError(
                f"out of memory on {self.device} ({reason}); choose a smaller backbone or a "
                "smaller image size."
            ) from error
        finally:
            self._arrays.clear()
            self._step = None  # and with it the graphs
            for parameter in self._trained.values():
                parameter.grad = None
            devices.give_back(self.device)
        return self.facts()

    def facts(self) -> TrainFacts:
        """Return what is known so far; the last phase is the last one that began."""
        head = sum(parameter.numel() for parameter in self.head.parameters())
        ran_layers = self._dtype if self._segments else torch.float32
        taken, total = devices.memory_taken(self.device)
        notes = (self._micro.note, self._evaluation.note and f"validation: {self._evaluation.note}")
        return TrainFacts(
            total_parameters=sum(layer.parameters for layer in self.job.info.layers) + head,
            trainable_parameters=sum(tensor.numel() for tensor in self._trained.values()),
            trainable_variables=len(self._trained),
            device=str(self.device),
            precision=precision.name(ran_layers),
            notes=tuple(note for note in notes if note),
            device_memory=taken,
            device_total=total,
        )

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write all tensors as they were at the last reported epoch, as safetensors.

        Raises:
            TrialError: No epoch was reported yet.
            ExportError: The file cannot be written.
        """
        if not self._savable:
            raise TrialError(
                "the trial was stopped before its first epoch ended, so there is no model to "
                "save; give it more time."
            )
        tensors = {
            f"{part}.{name}": self._snapshot.get(tensor, tensor)
            for part, module in (("head", self.head), ("backbone", self._built().module))
            for name, tensor in module.state_dict(keep_vars=True).items()
        }
        save_model(path, tensors, metadata)

    def begin(self, stage: Stage) -> None:
        """Make the stage's layers trainable; see ``Steps``."""
        job, layers = self.job, len(self.job.info.layers)
        cuts = [source.cut for source in (*stage.train, stage.validation)]
        if min(stage.fine_tune_at, *cuts) < layers:
            self._built().freeze(stage.fine_tune_at)
        self._trained = self._head_parameters() | self._layer_parameters(stage.fine_tune_at)
        # Stopped before the phase's first report, the model is still as it was.
        self._keep(self._trained.values())
        peak = stage.spec.learning_rate
        # An array of its own for every epoch is read once, so there is no use in holding it.
        self._hold = len({source.path for source in stage.train}) == 1
        self._fine_tune_at = stage.fine_tune_at
        self._segments.clear()  # other layers are frozen now
        self._step = Step(
            optim.create(stage.optimizer, self._trained.values(), peak, job.weight_decay),
            Loss(job, self._indices),
            self._micro,
            torch.amp.GradScaler("cuda", enabled=self._dtype == torch.float16),
            Replays(list(self._trained.values()), enabled=self._records(stage.train)),
        )

    def train(self, epoch: Epoch) -> Iterator[tuple[int, float | None]]:
        """Take an epoch's steps; see ``Steps``."""
        assert self._step is not None, "begin comes first"
        held = self._arrays if self._hold else {}
        feed = Feed(epoch.source, self._indices, held)
        total = torch.zeros((), device=self.device)
        done = 0
        self.head.train()
        if self._network is not None:
            self._network.freeze(self._fine_tune_at)
        with _random(epoch.key, self.device):
            batches = feed.batches(epoch.order, self.job.batch_size)
            forward = partial(self._above, feed.source.cut)
            for number, (positions, rate) in enumerate(zip(batches, epoch.rates, strict=True)):
                total += self._step(feed.take, forward, positions, float(rate))
                done += len(positions)
                look = number % _LOOK_EVERY == 0 or done == len(epoch.order)
                yield done, float(total) if look or self.device.type == "cpu" else None

    def validate(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of a source's images; see ``Steps``."""
        feed = Feed(source, self._indices, self._arrays)
        self.head.eval()
        if self._network is not None:
            self._network.eval()
        batch_size = self._evaluation.batch_size if source.pooling is None else _POOLED_BATCH
        for positions in feed.batches(np.arange(len(feed)), batch_size):
            with torch.inference_mode():
                logits = self._evaluation.fit(partial(self._evaluate, feed, positions))
            yield logits.float().cpu().numpy()

    def remember(self) -> None:
        """Copy what was trained to the CPU; see ``Steps``."""
        self._keep(self._trained.values())
        self._savable = True

    def _evaluate(self, feed: Feed, positions: NDArray[np.int64]) -> Tensor:
        if feed.source.pooling is not None:
            return self._logits(feed, positions)
        return torch.cat([self._logits(feed, part) for part in self._evaluation.parts(positions)])

    def _logits(self, feed: Feed, positions: NDArray[np.int64]) -> Tensor:
        """Run everything above a source over some of its images."""
        return self._above(feed.source.cut, feed.take(positions))

    def _records(self, train: Sequence[Source]) -> bool:
        """Whether steps on these sources can be replayed."""
        start, *others = {source.cut for source in train}
        if self.device.type != "cuda" or others:
            return False
        return start == len(self.job.info.layers) or recordable(self._part(start))

    def _above(self, start: int, x: Tensor) -> Tensor:
        """Run everything above a cut."""
        if start < len(self.job.info.layers):
            with precision.autocast(self.device, self._dtype):
                x = self._part(start)(x)
        logits: Tensor = self.head(x)
        return logits

    def _part(self, start: int) -> nn.Module:
        """Return the layers from a cut on, made once a phase."""
        if start not in self._segments:
            self._segments[start] = self._segment(start)
        return self._segments[start]

    def _segment(self, start: int) -> nn.Module:
        """Make a module of the layers from a cut on; those that stay frozen only run.

        They are the same computation as where their output is stored.
        """
        network = self._built()
        at, stop = self._fine_tune_at, len(self.job.info.layers)
        border = max(cut.index for cut in self.job.info.cuts if cut.index <= max(at, start))
        if border <= start:
            return network.trainable(start, stop)
        frozen = network.frozen(start, border)
        return frozen if border == stop else nn.Sequential(frozen, network.trainable(border, stop))

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

    def _keep(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            self._snapshot[parameter] = parameter.detach().to("cpu", copy=True)


@contextmanager
def _random(key: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seed torch's generators from a key, and put them back afterwards."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
