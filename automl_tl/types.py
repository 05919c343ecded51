"""The boundary between the core and its plugins: plain, frozen, typed values and protocols.

Everything here is safe to send to another process, except the callables of a ``Backbone``,
a ``BackendSpec`` and a ``DatasetSpec``, which stay in the process that discovered them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.data.index import DataIndex

Pooling = Literal["avg", "max", "flatten"]
Phase = Literal["warm-up", "fine-tuning"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How uint8 RGB pixels become a backbone's input: ``(x / 255 - mean) / std``.

    Attributes:
        mean: Per channel, in the range of ``x / 255``, in the order of ``channels``.
        std: Per channel, likewise.
        channels: ``bgr`` reverses the channels first (the Caffe networks).
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"


@dataclass(frozen=True, slots=True)
class PretrainedWeights:
    """Weights that a backbone is published with.

    Attributes:
        name: What ``--weights`` calls them, ``imagenet`` by convention.
        path: Returns where the file lies or would lie once downloaded. Imports no framework.
        url: Where it comes from; None for weights that ship with the plugin.
        licence: Licence of the weights.
    """

    name: str
    path: Callable[[], Path]
    url: str | None = None
    licence: str = "unknown"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pretrained network without its classifier. All data but the loader.

    Attributes:
        name: Unique within its backend, as its framework spells it.
        backend: Name of the backend that runs it.
        load: ``load(weights)`` returns the framework's network *with* whatever classifier it has;
            ``weights`` is the path of a weights file, or None for random ones (drawn from the
            framework's global generator, which the backend seeds). Raises ``WeightsError``.
        input_size: Side of the square input in pixels that the weights were trained for.
        min_size: Smallest side that the network accepts.
        fixed_size: The network takes ``input_size`` only.
        preprocess: Normalisation, part of every exported graph.
        parameters: Number of parameters, with the original classifier.
        pretrained: Published weights, None when there are none.
        licence: Licence of the architecture's code.
        recommended: Searched when the user names no backbone.
        small_images: Meant for images of at most 64 pixels a side.
        facts: Whatever else is worth printing (``imagenet_accuracy``, ``gflops``, ...).
    """

    name: str
    backend: str
    load: Callable[[Path | None], Any]
    input_size: int
    parameters: int
    min_size: int = 32
    fixed_size: bool = False
    preprocess: Preprocess = field(default_factory=Preprocess)
    pretrained: PretrainedWeights | None = None
    licence: str = "unknown"
    recommended: bool = False
    small_images: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``backend/name``."""
        return f"{self.backend}/{self.name}"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A backbone with given weights at a given input size.

    Attributes:
        backbone: The backbone's key.
        image_size: Side of the square input in pixels.
        weights: Path of the weights file, None for random weights.
        weights_id: Identity of the weights: their file's hash, or ``random:SEED``.
        seed: Seed of random weights.
    """

    backbone: str
    image_size: int
    weights: Path | None
    weights_id: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network.

    Attributes:
        name: Unique name, in the framework's own words.
        kind: Class or function name.
        parameters: Number of parameters that this layer is the first to use.
    """

    name: str
    kind: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where exactly one tensor flows from below to above.

    Attributes:
        index: Into the layers: ``layers[:index]`` are below. 0 is the pixels,
            ``len(layers)`` the network's output.
        shape: Shape of one image's tensor there, in the framework's own layout.
        flops: Multiply-adds below, for one image.
    """

    index: int
    shape: tuple[int, ...]
    flops: int


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network's layers in execution order and its cut points, from input to output.

    Attributes:
        layers: In execution order.
        cuts: Sorted by index; the first is 0 (one uint8 image, ``(S, S, 3)``), the last
            ``len(layers)``.
        features: Width of the pooled output: channels of a spatial map, or the length of a vector.
        version: Whatever changes the numbers if it changes (framework and plugin version).
    """

    layers: tuple[Layer, ...]
    cuts: tuple[Cut, ...]
    features: int
    version: str


@dataclass(frozen=True, slots=True)
class View:
    """One draw of augmentation parameters for every image; see ``automl_tl.augment``.

    Attributes:
        strength: In (0, 1].
        seed: Seed of the draws.
        index: Which of the views: view k stands for the draws of epoch k.
        flip: Whether half of the images are mirrored; wrong for digits and text.
    """

    strength: float
    seed: int
    index: int
    flip: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """An array on disk to compute from.

    Attributes:
        path: A ``.npy`` file to be memory-mapped: uint8 ``(N, S, S, 3)`` pixels when ``cut`` is 0,
            else the tensors at that cut, or pooled features.
        cut: Index of the cut that the array was stored at.
        pooling: ``avg`` or ``max`` for pooled features ``(N, F)``, None for the raw tensor.
        rows: int64 indices into the array, in the order to use; None for all of them.
        view: Augmentation to apply to the pixels; only with ``cut == 0``. Its draws are keyed by
            position in ``rows``.
    """

    path: Path
    cut: int
    pooling: Literal["avg", "max"] | None = None
    rows: NDArray[np.int64] | None = None
    view: View | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on top of a backbone: pooling, dropout, hidden layers, a linear classifier.

    For a vector output, pooling does nothing. Each hidden layer is Dense, ReLU, dropout.

    Attributes:
        classes: Width of the classifier.
        units: Widths of the hidden layers.
        dropout: Rate before the classifier and after each hidden layer.
        pooling: Of a spatial map.
    """

    classes: int
    units: tuple[int, ...] = ()
    dropout: float = 0.0
    pooling: Pooling = "avg"


@dataclass(frozen=True, slots=True)
class PhaseSpec:
    """One phase of training.

    Attributes:
        epochs: Number of epochs; 0 skips the phase.
        learning_rate: Peak learning rate.
    """

    epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Everything a backend needs to train one trial.

    Sources are promises, see ``Progress.need``, so that a trial that is pruned early never pays for
    the views of later epochs. Phase 1 trains the head on ``head_train`` (stored at
    ``len(layers)``, or the pixels when nothing is stored). Phase 2 trains the layers from
    ``fine_tune_at`` and the head; epoch ``e`` reads ``tune_train[e % len(tune_train)]``, whose cut
    is at most ``fine_tune_at``. All training sources hold the same images in the same order, as
    ``train_labels`` does; likewise validation.

    Attributes:
        network: The backbone.
        info: Its layers and cuts.
        head: The head.
        fine_tune_at: ``layers[:fine_tune_at]`` stay frozen; ``len(layers)`` trains only the head.
        warmup: Phase 1.
        fine_tuning: Phase 2; 0 epochs when the network is frozen.
        optimizer: ``sgd`` (momentum 0.9), ``adam``, ``adamw``, ``rmsprop`` or ``adagrad``.
        schedule: ``constant`` or ``cosine``; see ``automl_tl.schedules``.
        weight_decay: Decoupled for ``adamw``, L2 otherwise.
        batch_size: Images a step.
        label_smoothing: In [0, 1).
        class_weights: float32 ``(classes,)``, or None.
        seed: Of the head's weights, dropout and shuffling.
        train_labels: int64 ``(n_train,)``.
        head_train: Source of phase 1.
        head_validation: Validation source of phase 1.
        tune_train: Sources of phase 2, one a view.
        tune_validation: Validation source of phase 2.
    """

    network: NetworkSpec
    info: NetworkInfo
    head: Head
    fine_tune_at: int
    warmup: PhaseSpec
    fine_tuning: PhaseSpec
    optimizer: str
    schedule: str
    weight_decay: float
    batch_size: int
    label_smoothing: float
    class_weights: NDArray[np.float32] | None
    seed: int
    train_labels: NDArray[np.int64]
    head_train: Source
    head_validation: Source
    tune_train: tuple[Source, ...] = ()
    tune_validation: Source | None = None


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        phase: Which phase it belongs to.
        epoch: 0-based, counted through both phases.
        epochs: Epochs of both phases together.
        train_loss: Mean over the epoch's images.
        validation_logits: float32 ``(n_validation, classes)``.
        learning_rate: At the end of the epoch.
        seconds: Wall time of the epoch.
    """

    phase: Phase
    epoch: int
    epochs: int
    train_loss: float
    validation_logits: NDArray[np.float32]
    learning_rate: float
    seconds: float


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


@dataclass(frozen=True, slots=True)
class TrainFacts:
    """What a trainer knows once it has run.

    Attributes:
        total_parameters: Of the backbone without its classifier, and the head.
        trainable_parameters: Those that the last phase trains.
        trainable_variables: Number of tensors among them.
        device: Where it ran.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        notes: Sentences that a person should see ("out of memory: batch size 32 became 2 x 16").
    """

    total_parameters: int
    trainable_parameters: int
    trainable_variables: int
    device: str
    precision: str
    notes: tuple[str, ...] = ()


class Trainer(Protocol):
    """Trains one job. Create it with ``Backend.trainer``."""

    def run(self, progress: Progress) -> TrainFacts:
        """Train to the end, or until ``progress`` raises."""

    def facts(self) -> TrainFacts:
        """What is known so far; also after ``run`` was left by an exception."""

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model as it was at the last reported epoch.

        The file is safetensors with all tensors of the network and the head; ``metadata`` is
        stored as it is. Works after ``run`` was left by ``FinishTraining`` too.
        """


class Model(Protocol):
    """A trained model, opened from a file that ``Trainer.save`` or ``export`` wrote."""

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)``; returns ``(N, classes)``."""

    def export(self, format: str, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model in another format, to exactly ``path``, ``metadata`` inside."""


class Backend(Protocol):
    """Trains with one framework. Lives in a process of its own; see ``automl_tl.host``."""

    def describe(self, network: NetworkSpec) -> NetworkInfo:
        """List layers and cut points. Raises ``WeightsError`` or ``PluginError``."""

    def download(self, backbone: str) -> Path:
        """Fetch a backbone's published weights; raises ``WeightsError``, naming the file."""

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

        Fills the existing float32 ``.npy`` file ``out``: ``(n, *shape)`` with the shape of the
        cut, or ``(n, features)`` with ``pooling``, which goes only with the last cut.
        """

    def trainer(self, job: TrainJob) -> Trainer:
        """Prepare a trial."""

    def load(self, path: Path) -> Model:
        """Open a model file by its content. Raises ``ExportError``."""

    def devices(self) -> list[str]:
        """Devices of this machine, best first: ``cuda:0``, ``mps``, ``cpu``."""

    def configure(self, device: str, threads: int) -> str:
        """Choose the device (``auto`` or one of ``devices``) and the CPU threads; returns it."""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A framework.

    Attributes:
        name: First half of its backbones' keys.
        load: Imports the framework and returns the backend.
        formats: Export formats and their file suffixes; the first is the default.
        packages: Distributions whose versions matter.
        environment: Variables to set before the framework is imported.
    """

    name: str
    load: Callable[[], Backend]
    formats: Mapping[str, str]
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A named data source.

    Attributes:
        name: What a person types instead of a path.
        load: Returns the index of its images; ``load(cache_directory)``.
        description: One line.
        licence: Licence of the data.
    """

    name: str
    load: Callable[[Path], DataIndex]
    description: str = ""
    licence: str = "unknown"


@runtime_checkable
class Engine(Protocol):
    """Starts workers and hands over what they say."""

    def start(self, index: int) -> None:
        """Start worker ``index``, or start it again."""

    def poll(self, timeout: float) -> list[tuple[int, Mapping[str, Any]]]:
        """Wait up to ``timeout`` seconds for messages; a dead worker says ``{"event": "died"}``."""

    def send(self, index: int, message: Mapping[str, Any]) -> None:
        """Send a message to a worker; does nothing when it is dead."""

    def close(self, grace: float) -> None:
        """End all workers, after ``grace`` seconds by force."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What an engine needs to start the workers of a search.

    Attributes:
        directory: The study directory.
        devices: One a worker.
        threads: CPU threads a worker.
        setup: Returns the first message for a worker, by its index; to be sent as it is.
    """

    directory: Path
    devices: tuple[str, ...]
    threads: int
    setup: Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A way to start workers.

    Attributes:
        name: What ``--engine`` calls it.
        create: Makes the engine for one search.
    """

    name: str
    create: Callable[[WorkerSettings], Engine]


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """What observers are told.

    Attributes:
        study: Name of the study.
        directory: The study directory.
        number: Of the trial.
        state: ``complete``, ``pruned`` or ``failed``.
        value: The study's metric, None unless it is known.
        params: Sampled parameters.
        attributes: Everything else that is recorded of the trial.
    """

    study: str
    directory: Path
    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]
    attributes: Mapping[str, Any]
