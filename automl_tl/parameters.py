"""The parameters of a trial: what they mean, where they are searched, what makes sense at all."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Fixed:
    """A parameter that is not searched."""

    value: Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values. Lists among them travel through Optuna as JSON."""

    options: tuple[Any, ...]
    preferred: Any = None


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two bounds, both included.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        log: Sampled on a logarithmic scale.
        step: Distance of neighbouring values; None for a continuous one (1 for integers).
        integer: Whether the values are integers.
        preferred: What the first trials try.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False
    preferred: float | None = None


Domain = Fixed | Choice | Range


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a trial.

    Attributes:
        default: Where it is searched unless the user says otherwise.
        kind: ``float``, ``int``, ``str``, ``bool``, ``units`` (a list of layer widths) or
            ``layer`` (an index, a name, ``all``, ``none`` or a fraction).
        description: One line.
        bounds: Values that make sense at all, both included.
        options: Values that a ``str`` may have.
    """

    default: Domain
    kind: str
    description: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    options: tuple[str, ...] = ()


_OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")

PARAMETERS: dict[str, Parameter] = {
    "depth": Parameter(
        Range(0.0, 1.0, step=0.125, preferred=0.5),
        "float",
        "share of the layers with weights to fine-tune, from the top; 0 is feature extraction",
        (0, 1),
    ),
    "fine_tune_at": Parameter(
        Fixed(None),
        "layer",
        "first layer to fine-tune, instead of depth: an index, a name, a fraction, all or none",
    ),
    "image_size": Parameter(
        Fixed(None), "int", "side of the input in pixels; the backbone's own by default", (8, 1024)
    ),
    "resize": Parameter(
        Fixed("squash"),
        "str",
        "how an image becomes a square: squash the whole, crop the centre, or pad",
        options=("squash", "crop", "pad"),
    ),
    "pooling": Parameter(
        Fixed("avg"), "str", "of the feature map", options=("avg", "max", "flatten")
    ),
    "head_layers": Parameter(
        Range(0, 2, integer=True, preferred=0), "int", "hidden layers of the head", (0, 8)
    ),
    "head_units": Parameter(
        Range(64, 1024, log=True, integer=True, preferred=256),
        "units",
        "width of each hidden layer, or the list of all widths",
        (1, 65536),
    ),
    "dropout": Parameter(
        Range(0.0, 0.5, step=0.1, preferred=0.2), "float", "dropout rate in the head", (0, 0.99)
    ),
    "optimizer": Parameter(
        Choice(_OPTIMIZERS, "adam"), "str", "optimizer of both phases", options=_OPTIMIZERS
    ),
    "fine_tune_optimizer": Parameter(
        Fixed("same"),
        "str",
        "optimizer of fine-tuning, where it is another one",
        options=("same", *_OPTIMIZERS),
    ),
    "learning_rate": Parameter(
        Range(1e-4, 3e-2, log=True, preferred=2e-3), "float", "peak rate of the head", (1e-8, 100)
    ),
    "fine_tune_factor": Parameter(
        Range(3e-3, 1.0, log=True, preferred=0.15),
        "float",
        "rate of fine-tuning, as a share of learning_rate",
        (1e-6, 100),
    ),
    "weight_decay": Parameter(
        Range(1e-6, 1e-2, log=True, preferred=1e-4),
        "float",
        "decoupled for adamw, L2 otherwise",
        (0, 10),
    ),
    "batch_size": Parameter(Choice((16, 32, 64), 32), "int", "images a step", (1, 65536)),
    "label_smoothing": Parameter(
        Range(0.0, 0.2, step=0.05, preferred=0.1), "float", "label smoothing", (0, 0.99)
    ),
    "augmentation": Parameter(
        Range(0.0, 1.0, step=0.5, preferred=0.5),
        "float",
        "strength while fine-tuning: crop, flip, rotation, colour",
        (0, 1),
    ),
    "flip": Parameter(Fixed(True), "bool", "whether augmentation mirrors images"),
    "rotation": Parameter(
        Fixed(15.0), "float", "most degrees that augmentation turns images at strength 1", (0, 180)
    ),
    "crop": Parameter(Fixed(True), "bool", "whether augmentation shows parts of images"),
    "colour": Parameter(Fixed(True), "bool", "whether augmentation changes colours"),
    "epochs": Parameter(
        Range(6, 20, integer=True, preferred=12), "int", "epochs of the last phase", (1, 100_000)
    ),
    "warmup_epochs": Parameter(
        Fixed(30), "int", "epochs of the head alone, before those of the last phase", (0, 100_000)
    ),
    "schedule": Parameter(
        Fixed("cosine"), "str", "of the learning rate", options=("cosine", "constant")
    ),
    "class_weights": Parameter(
        Fixed("none"),
        "str",
        "balanced weighs every class by the inverse of its frequency",
        options=("none", "balanced"),
    ),
}


WHEN_FROZEN: dict[str, Any] = {
    "fine_tune_factor": 1.0,
    "fine_tune_optimizer": "same",
    "augmentation": 0.0,
    "flip": True,
    "rotation": 15.0,
    "crop": True,
    "colour": True,
}
"""What has no effect, and is not drawn, where the network stays frozen."""

INPUT = ("backbone", "image_size", "resize")
"""What decides which network sees images of which shape."""

SEEN_BY = (*INPUT, "augmentation", "flip", "rotation", "crop", "colour")
"""What decides which network sees which pixels."""

STORED_BY = (*SEEN_BY, "depth", "fine_tune_at")
"""What decides which stored activations a trial trains from."""


def preferred(found: Choice | Range, wish: Any = None) -> Any:
    """Return the value of a domain that comes closest to what is wished, or preferred."""
    wish = found.preferred if wish is None else wish
    if isinstance(found, Choice):
        options = [encode(option) for option in found.options]
        if wish in options or not _numeric(wish, *options):
            return wish if wish in options else options[0]
        return min(options, key=lambda option: (_distance(option, wish, options), -option))
    if wish is None:
        wish = math.sqrt(found.low * found.high) if found.log else (found.low + found.high) / 2
    value = min(max(wish, found.low), found.high)
    if found.step:
        value = min(found.low + round((value - found.low) / found.step) * found.step, found.high)
    return round(value) if found.integer else value


def _numeric(*values: Any) -> bool:
    return all(isinstance(value, int | float) and type(value) is not bool for value in values)


def _distance(option: float, wish: float, options: Sequence[float]) -> float:
    """Return how far an option is from a wish: by ratio where no value is 0."""
    if min(wish, *options) > 0:
        return abs(math.log(option / wish))
    return abs(option - wish)


def contains(found: Domain, value: Any) -> bool:
    """Whether a trial can have a value, of the right kind, in this domain."""
    if isinstance(found, Fixed):
        return bool(value == found.value)
    if isinstance(found, Choice):
        return value in found.options
    if isinstance(value, list) or not found.low <= value <= found.high:
        return False
    steps = (value - found.low) / found.step if found.step else 0.0
    return bool(abs(steps - round(steps)) < 1e-6)


def spelled(found: Domain) -> str:
    """Return a domain in words, ``-`` for what is left to the backbone."""
    if isinstance(found, Choice):
        return ", ".join(str(option) for option in found.options)
    if isinstance(found, Range):
        scale = (
            ", logarithmic" if found.log else f", in steps of {found.step}" if found.step else ""
        )
        return f"{found.low:g} to {found.high:g}{scale}"
    return "-" if found.value is None else f"always {found.value}"


def encode(option: Any) -> Any:
    """Return an option as Optuna can store it: lists as JSON."""
    return json.dumps(option) if isinstance(option, list) else option


def decode(value: Any) -> Any:
    """Undo ``encode``."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
