"""What plugins announce: plain, frozen values whose only code is a loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from automl_tl.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from automl_tl.data.index import DataIndex
    from automl_tl.protocols import Backend, Engine
    from automl_tl.types import Phase

__all__ = [
    "Backbone",
    "BackendSpec",
    "DatasetSpec",
    "EngineSpec",
    "FinishedEpoch",
    "FinishedTrial",
    "HubFile",
    "Preprocess",
    "PretrainedWeights",
    "WorkerSettings",
    "dataset_folder",
]


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
class HubFile:
    """A file in a Hugging Face repository, which ``huggingface_hub`` keeps in its own cache.

    Attributes:
        repo: ``ORGANIZATION/REPOSITORY``.
        file: Its name inside, safetensors.
        revision: A commit, so that the file never changes; a tag or a branch may.
    """

    repo: str
    file: str = "model.safetensors"
    revision: str = "main"

    def __post_init__(self) -> None:
        """Refuse files that may hold more than tensors. Raises ``PluginError``."""
        if not self.file.endswith(".safetensors"):
            raise PluginError(
                f"expected a .safetensors file in the repository {self.repo}, got {self.file}; "
                "files of other kinds may run code when they are loaded."
            )

    def __str__(self) -> str:
        """Return what ``--weights`` takes."""
        return f"hf://{self.repo}/{self.file}@{self.revision}"


@dataclass(frozen=True, slots=True)
class PretrainedWeights:
    """Weights that a backbone is published with: a file, a URL or a Hugging Face repository.

    Attributes:
        name: What ``--weights`` calls them, ``imagenet`` by convention.
        path: Returns where the file lies, as it ships with the plugin, or where it is put once
            downloaded from ``url``. Imports no framework. None: in the cache, by ``sha256``.
        url: Where it comes from; needs ``path`` or ``sha256``.
        licence: Licence of the weights.
        sha256: Hexadecimal, of the file at ``url``; of all 64 digits the first are enough.
        md5: Likewise, for a file that was published with nothing better.
        hub: Where it comes from otherwise.
    """

    name: str
    path: Callable[[], Path] | None = None
    url: str | None = None
    licence: str = "unknown"
    sha256: str | None = None
    md5: str | None = None
    hub: HubFile | None = None

    def __post_init__(self) -> None:
        """Refuse weights that are nowhere. Raises ``PluginError``."""
        if self.path is None and self.hub is None and not (self.url and self.sha256):
            raise PluginError(
                f"expected weights {self.name} with a path, a url and its sha256, or a hub file, "
                "got none of them."
            )

    @property
    def source(self) -> str | None:
        """Where the file is downloaded from; None when it ships with the plugin."""
        return str(self.hub) if self.hub else self.url


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pretrained network without its classifier. All data but the loader.

    Attributes:
        name: Unique within its backend, as its framework spells it.
        backend: Name of the backend that runs it.
        load: ``load(weights)`` returns the framework's network *with* whatever classifier it has,
            or, where its layers cannot be found, its stages; ``weights`` is the path of a weights
            file, or None for random ones (drawn from the framework's global generator, which the
            backend seeds). Stages are a mapping of names to modules (PyTorch) or layers and models
            (Keras) in execution order, *without* a classifier: the first takes normalised images,
            each other the one tensor that the stage before it returns, and the last returns a
            spatial map or a vector. Each is one layer, with a cut after it. Raises
            ``WeightsError``.
        input_size: Side of the square input in pixels that the weights were trained for.
        min_size: Smallest side that the network accepts.
        fixed_size: The network takes ``input_size`` only.
        preprocess: Normalisation, part of every exported graph.
        parameters: Number of parameters, with the original classifier.
        pretrained: Published weights, None when there are none.
        classifier: Published weights with the original classifier, where these are a file of
            their own; None: ``pretrained`` has it.
        load_classifier: Like ``load``, but returns the network *with* its original classifier,
            which maps normalised images to logits; None: ``load`` does.
        licence: Licence of the architecture's code.
        recommended: Searched when the user names no backbone.
        small_images: Meant for images of at most 64 pixels a side.
        packages: Distributions, beside the backend's, whose versions its numbers depend on.
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
    classifier: PretrainedWeights | None = None
    load_classifier: Callable[[Path | None], Any] | None = None
    licence: str = "unknown"
    recommended: bool = False
    small_images: bool = False
    packages: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``backend/name``."""
        return f"{self.backend}/{self.name}"


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
        load: Returns the index of its images; ``load(cache_directory)``. What it keeps lies below
            ``dataset_folder(name, cache_directory)``.
        description: One line.
        licence: Licence of the data.
        download_bytes: About how much the first use downloads into that folder, for a progress
            bar; 0 when nothing.
    """

    name: str
    load: Callable[[Path], DataIndex]
    description: str = ""
    licence: str = "unknown"
    download_bytes: int = 0


def dataset_folder(name: str, cache_directory: Path) -> Path:
    """Return where a named data source keeps its files."""
    return cache_directory / "datasets" / name.replace("/", "-")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What an engine needs to start the workers of a search.

    Attributes:
        directory: The study directory.
        devices: One a worker, as far as this machine's devices go.
        threads: CPU threads a worker, likewise.
        setup: Returns the first message for a worker, by its index; to be sent as it is.
        workers: How many workers a person asked for; None leaves it to the engine.
        options: Values of those of ``EngineSpec.options`` that were given.
    """

    directory: Path
    devices: tuple[str, ...]
    threads: int
    setup: Callable[[int], Any]
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A way to start workers.

    Attributes:
        name: What ``--engine`` calls it.
        create: Makes the engine for one search.
        options: Names of what else it takes, in ``WorkerSettings.options``: ``address`` and
            ``gpus_per_trial``, which the command line has, or any other from Python.
        check: Told the options before any image is read; raises ``AutoMLError`` for what cannot
            be right, or when there is nothing to start workers on.
        remote: Its workers may run on other machines: each prepares the images there, in that
            machine's cache, and takes its CPU threads from ``OMP_NUM_THREADS``, or all.
    """

    name: str
    create: Callable[[WorkerSettings], Engine]
    options: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], object] | None = None
    remote: bool = False


@dataclass(frozen=True, slots=True)
class FinishedEpoch:
    """What observers are told while a trial trains.

    Attributes:
        study: Name of the study.
        directory: The study directory.
        number: Of the trial.
        phase: ``warm-up`` or ``fine-tuning``.
        epoch: 0-based, counted through both phases.
        epochs: Epochs of both phases together.
        metric: Name of the study's metric.
        value: The metric on the validation split.
        train_loss: Mean over the epoch's images.
        learning_rate: At the end of the epoch.
        seconds: Wall time of the epoch.
    """

    study: str
    directory: Path
    number: int
    phase: Phase
    epoch: int
    epochs: int
    metric: str
    value: float
    train_loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """What observers are told of a trial.

    Attributes:
        study: Name of the study.
        directory: The study directory.
        number: Of the trial.
        state: ``complete``, ``pruned`` or ``failed``.
        metric: Name of the study's metric.
        value: The metric on the validation split, None unless it is known.
        params: Sampled parameters.
        attributes: Everything else that is recorded of the trial.
    """

    study: str
    directory: Path
    number: int
    state: str
    metric: str
    value: float | None
    params: Mapping[str, Any]
    attributes: Mapping[str, Any]
