"""What backends and engines do, as protocols: a plugin's classes need not inherit from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.types import (
        EpochReport,
        Head,
        NetworkInfo,
        NetworkSpec,
        Source,
        TrainFacts,
        TrainJob,
    )

__all__ = [
    "Backend",
    "Engine",
    "Model",
    "Progress",
    "Trainer",
]


class Progress(Protocol):
    """What a backend calls while it works. All may raise ``StopTraining``; let it pass."""

    def need(self, source: Source) -> None:
        """Make sure that a source's array is complete; a trainer calls it before it first reads it.

        Sources of a ``TrainJob`` are promises: the array may be computed only now, which calls
        ``Backend.run`` from within this call.
        """

    def epoch(self, report: EpochReport) -> None:
        """Report a finished epoch."""

    def step(self, what: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` images of ``what`` are computed. Cheap to call."""


class Trainer(Protocol):
    """Trains one job. Create it with ``Backend.trainer``."""

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises."""

    def facts(self) -> TrainFacts:
        """What is known so far; also after ``run`` was left by an exception."""

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model as it was at the last reported epoch, or as it was given before any.

        The file is safetensors with all tensors of the network and the head; ``metadata`` is
        stored as it is. Works after ``run`` was left by ``FinishTraining`` too. A job with
        ``head_weights`` was given a model; one without has none before its first report.
        """


class Model(Protocol):
    """A trained model, opened from a file that ``Trainer.save`` or ``export`` wrote."""

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)``; returns ``(N, classes)``."""

    def calibrate(self, temperature: float) -> None:
        """Divide all logits by a temperature, those of files that are exported from now on too.

        Kernel and bias of the last dense layer are divided, so that no format needs an operation
        of its own for it. Only for a file that ``Trainer.save`` wrote; raises ``ExportError``.
        """

    def export(self, format: str, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model in another format, to exactly ``path``, ``metadata`` inside."""


class Backend(Protocol):
    """Trains with one framework. Lives in a process of its own; see ``automl_tl.hosted``."""

    def describe(self, network: NetworkSpec) -> NetworkInfo:
        """List layers and cut points. Raises ``WeightsError`` or ``PluginError``."""

    def run(
        self,
        network: NetworkSpec,
        source: Source,
        cut: int,
        pooling: Literal["avg", "max"] | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """Compute the layers between ``source.cut`` and ``cut``, all frozen.

        Fills the existing ``.npy`` file ``out``, float32 or float16: ``(n, *shape)`` with the shape
        of the cut, or ``(n, features)`` with ``pooling``, which goes only with the last cut. It is
        computed in float32, whatever ``source`` and ``out`` hold.
        """

    def extract(
        self,
        network: NetworkSpec,
        source: Source,
        layer: str,
        pooling: Literal["avg", "max"] | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """Compute the output of any layer, all frozen.

        Writes a new float32 ``.npy`` file ``out``, aside and renamed: ``(n, *shape)`` in the
        framework's own layout, or ``(n, channels)`` with ``pooling``, which goes with spatial maps
        and does nothing to vectors. ``source`` is the pixels or a stored cut at or below the layer.

        Raises:
            UsageError: When there is no such layer, or its output is not one tensor an image.
        """

    def classifier(self, backbone: str, weights: Path) -> Model:
        """Build a backbone with its original classifier, at its ``input_size``.

        Args:
            backbone: Its key.
            weights: A file with the classifier's weights too.

        Raises:
            WeightsError: When the weights cannot be loaded or lack the classifier.
        """

    def trainer(self, job: TrainJob) -> Trainer:
        """Prepare a trial."""

    def assemble(
        self,
        network: NetworkSpec,
        head: Head,
        weights: Sequence[NDArray[np.float32]],
        path: Path,
        metadata: Mapping[str, str],
    ) -> None:
        """Write the model of a frozen network and a trained head, as ``Trainer.save`` does.

        Args:
            network: The network, as it was loaded.
            head: On its pooled output.
            weights: The head's, as ``TrainJob.head_weights``.
            path: Of the file.
            metadata: Stored as it is.
        """

    def load(self, path: Path) -> Model:
        """Open a model file by its content. Raises ``ExportError``."""

    def devices(self) -> list[str]:
        """Devices of this machine, best first: ``cuda:0``, ``mps``, ``cpu``."""

    def configure(self, device: str, threads: int) -> str:
        """Choose the device (``auto`` or one of ``devices``) and the CPU threads; returns it."""


class Engine(Protocol):
    """Starts workers and hands over what they say.

    ``workers`` says how many there are; a search starts them from 0 on. An engine may speak for a
    worker that it has started: ``{"event": "fatal", "reason": ...}`` ends the search,
    ``{"event": "warning", "text": ...}`` and ``note`` tell the person something.
    """

    workers: int

    def start(self, index: int) -> None:
        """Start worker ``index``, or start it again."""

    def poll(self, timeout: float) -> list[tuple[int, Mapping[str, Any]]]:
        """Wait up to ``timeout`` seconds for messages; a dead worker says ``died``, and why."""

    def send(self, index: int, message: Mapping[str, Any]) -> None:
        """Send a message to a worker; does nothing when it is dead."""

    def close(self, grace: float) -> None:
        """End all workers, after ``grace`` seconds by force."""
