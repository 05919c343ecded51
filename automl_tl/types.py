"""What the core and a backend tell each other: plain, frozen values, safe to send to a process.

What plugins announce is in ``automl_tl.specs``, what backends and engines do in
``automl_tl.protocols``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Cut",
    "EpochReport",
    "Head",
    "Layer",
    "NetworkInfo",
    "NetworkSpec",
    "Phase",
    "PhaseSpec",
    "Pooling",
    "Source",
    "Split",
    "TrainFacts",
    "TrainJob",
    "View",
]

Pooling = Literal["avg", "max", "flatten"]
Phase = Literal["warm-up", "fine-tuning"]
Split = Literal["train", "validation", "test"]


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
        rotation: Largest angle at strength 1, in degrees.
        crop: Whether a part of an image is shown instead of the whole.
        colour: Whether brightness, contrast and saturation change.
    """

    strength: float
    seed: int
    index: int
    flip: bool = True
    rotation: float = 15.0
    crop: bool = True
    colour: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """An array on disk to compute from.

    Attributes:
        path: A ``.npy`` file to be memory-mapped: uint8 ``(N, S, S, 3)`` pixels when ``cut`` is 0,
            else the tensors at that cut, float32 or float16, or pooled features.
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
        scale: What the pooled features are multiplied by, a constant: their root mean square is
            then 1, and a learning rate means the same on every backbone.
    """

    classes: int
    units: tuple[int, ...] = ()
    dropout: float = 0.0
    pooling: Pooling = "avg"
    scale: float = 1.0


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
        optimizer: ``sgd`` (momentum 0.9), ``adam``, ``adamw``, ``rmsprop`` or ``adagrad``, of
            phase 1.
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
        head_weights: float32 kernels ``(inputs, outputs)`` and biases, ``kernel, bias, kernel,
            ...``, of a head that has been through phase 1 already, which then is left out; None
            draws them with ``automl_tl.training.head``. A trainer of such a job may be saved
            before it ran.
        fine_tune_optimizer: Of phase 2; None is that of phase 1.
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
    head_weights: tuple[NDArray[np.float32], ...] | None = None
    fine_tune_optimizer: str | None = None


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
        device_memory: Most bytes of the device's memory that training held; 0 where that is not
            known or not bounded.
        device_total: Bytes of memory that the device has; 0 where that is not known.
    """

    total_parameters: int
    trainable_parameters: int
    trainable_variables: int
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    device_memory: int = 0
    device_total: int = 0
