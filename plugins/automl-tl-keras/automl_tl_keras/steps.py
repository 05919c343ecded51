"""What training asks of a Keras backend: one small interface, an implementation for each."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from automl_tl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    import keras
    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.types import Pooling
    from automl_tl_keras.network import Network

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a phase trains.

    Attributes:
        optimizer: Its name.
        pooling: Of the head.
        network: Whose layers train with the head; None for the head alone.
        fine_tune_at: ``layers[:fine_tune_at]`` of the network stay frozen.
    """

    optimizer: str
    pooling: Pooling
    network: Network | None = None
    fine_tune_at: int = 0


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of a job that enter compiled code as arguments, so that the next job reuses it.

    Attributes:
        weight_decay: Decoupled for ``adamw``, L2 otherwise.
        scale: What pooled features are multiplied by.
        dropout: Rate of the head's.
        smoothing: Of the labels.
        class_weights: float32 ``(classes,)``.
    """

    weight_decay: float
    scale: float
    dropout: float
    smoothing: float
    class_weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """Images that go through a step together: a batch, or a part of one.

    Attributes:
        x: Their tensors at the cut where the step begins, or the head's input.
        labels: int64 ``(n,)``.
    """

    x: Any
    labels: NDArray[np.int64]


class Stepper(Protocol):
    """Takes steps on one device for one trial at a time; lives as long as the backend.

    The loss is softmax cross-entropy of smoothed labels; each image's value is multiplied by the
    weight of its class, and the mean over the batch is what steps reduce. Losses are returned as
    sums over the images, as numbers or as scalars that wait on the device.

    Attributes:
        precision: What layers compute in while they train; the head is always float32.
    """

    precision: str

    def place(self, array: NDArray[Any]) -> Any:
        """Put an array on the device."""

    def forward(self, network: Network, start: int, stop: int, x: Any) -> Any:
        """Run ``layers[start:stop]`` in inference mode."""

    def load(self, head: Mapping[str, NDArray[np.float32]]) -> None:
        """Fill the head's variables; their names are those of ``automl_tl_keras.head.draw``."""

    def begin(self, plan: Plan, numbers: Numbers) -> None:
        """Choose what trains, with a new optimizer; the head stays as it is."""

    def seed(self, seed: int) -> None:
        """Begin an epoch's dropout and stochastic depth; ``seed`` is below ``2 ** 31``."""

    def sweep(
        self,
        x: Any,
        labels: Any,
        order: NDArray[np.int64],
        batch_size: int,
        rates: NDArray[np.float64],
    ) -> Any:
        """Take steps over placed features and labels in one call; the head alone trains."""

    def backward(self, start: int, parts: Sequence[Part]) -> Any:
        """Compute a batch's gradients, as if its parts were one; ``update`` uses them.

        ``start`` is the cut that the parts lie at; the layers from there on run, unless the head
        alone trains. When the device's memory is too small, what the framework raises passes,
        and the batch may be tried again in other parts.
        """

    def update(self, rate: float) -> None:
        """Take one step along the gradients of the last batch; not to be tried again."""

    def logits(self, x: Any) -> NDArray[np.float32]:
        """Apply the head without dropout."""

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Copy what trains: the head's variables, and the network's under their names there.

        The names begin with ``head.`` and ``backbone.``.
        """

    def release(self) -> None:
        """Give the head's and the optimizer's memory back; compiled code stays."""


class Kept:
    """A bounded number of things that are dear to make, the last used.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, made if need be."""
        if key not in self._items:
            self._items[key] = make()
        self._items.move_to_end(key)
        if len(self._items) > self._most:
            self._items.popitem(last=False)
        found: T = self._items[key]
        return found


def variable_names(hidden: int) -> list[str]:
    """Return the names of a head's variables, kernel and bias of each layer in turn."""
    kinds = ("kernel", "bias")
    return [f"dense_{index}/{kind}" for index in range(hidden + 1) for kind in kinds]


def random_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of a model's random generators: dropout's, stochastic depth's."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def create() -> Stepper:
    """Make the stepper of the Keras backend that is imported.

    Raises:
        UsageError: When training is not implemented for it.
    """
    import keras

    name = keras.backend.backend()
    if name == "tensorflow":
        from automl_tl_keras.steps_tensorflow import TensorFlowStepper

        return TensorFlowStepper()
    if name == "torch":
        from automl_tl_keras.steps_torch import TorchStepper

        return TorchStepper()
    if name == "jax":
        from automl_tl_keras.steps_jax import JaxStepper

        return JaxStepper()
    raise UsageError(
        f"KERAS_BACKEND={name}: expected tensorflow, torch or jax, which can train; set "
        "KERAS_BACKEND to one of them."
    )
