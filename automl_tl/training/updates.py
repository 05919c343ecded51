"""The optimizers of heads that train in NumPy, over stacked arrays, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automl_tl.errors import UsageError
from automl_tl.training.head import decays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

EPSILON = 1e-7
MOMENTUM = 0.9
BETA1, BETA2 = 0.9, 0.999
DECAY = 0.9
"""Of RMSprop's mean of squares."""
START = 0.1
"""Of Adagrad's sum of squares."""
_PART = 1 << 14


class Update:
    """Moves the weights of neighbouring heads of a stack that have one optimizer.

    The rules are those of the backends: Keras's constants in PyTorch's formulas. Sums are kept
    without their constant factors, which saves a pass over memory for each.

    Args:
        name: ``sgd``, ``adam``, ``adamw``, ``rmsprop`` or ``adagrad``.
        heads: How many.
        weights: The stack's arrays, ``(k, inputs, outputs)`` and ``(k, 1, outputs)`` in turn.

    Raises:
        UsageError: For an unknown optimizer.
    """

    def __init__(self, name: str, heads: int, weights: Sequence[Array]) -> None:
        steps = {
            "sgd": self._sgd,
            "adam": self._adam,
            "adamw": self._adam,
            "rmsprop": self._rmsprop,
            "adagrad": self._adagrad,
        }
        if name not in steps:
            raise UsageError(f"optimizer: expected one of {', '.join(steps)}, got {name!r}.")
        self.heads = heads
        self._move = steps[name]
        self._decoupled = name == "adamw"
        slots = 2 if name in ("adam", "adamw") else 1
        start = START if name == "adagrad" else 0.0
        shapes = [(heads, *array.shape[1:]) for array in weights]
        self._slots = [
            [np.full(shape, start, np.float32) for _ in range(slots)] for shape in shapes
        ]
        self._taken = 0

    def drop(self, index: int) -> None:
        """Forget a head."""
        self.heads -= 1
        self._slots = [[np.delete(slot, index, axis=0) for slot in s] for s in self._slots]

    def step(
        self, weights: Sequence[Array], gradients: Sequence[Array], rates: Array, decay: Array
    ) -> None:
        """Take one step.

        Args:
            weights: Of these heads.
            gradients: Likewise; they are overwritten.
            rates: float32 ``(heads, 1, 1)``, the learning rate of each.
            decay: float32 ``(heads, 1, 1)``, the weight decay of each: decoupled for ``adamw``,
                else L2; biases are spared.
        """
        self._taken += 1
        decaying = bool(decay.any())
        for array, gradient, slots in zip(weights, gradients, self._slots, strict=True):
            if decaying and decays(array.shape[1:]):
                if self._decoupled:
                    np.multiply(array, 1 - rates * decay, out=array)
                else:
                    _add_product(gradient, decay, array)
            self._move(array, gradient, slots, rates)

    def _sgd(self, array: Array, gradient: Array, slots: list[Array], rates: Array) -> None:
        velocity = slots[0]
        velocity *= MOMENTUM
        velocity += gradient
        np.multiply(velocity, rates, out=gradient)
        array -= gradient

    def _adam(self, array: Array, gradient: Array, slots: list[Array], rates: Array) -> None:
        """Kingma and Ba, ICLR 2015; the slots hold the sums divided by one minus beta."""
        mean, square = slots
        root = np.sqrt((1 - BETA2) / (1 - BETA2**self._taken))
        share = (1 - BETA1) / (1 - BETA1**self._taken) / root
        mean *= BETA1
        mean += gradient
        square *= BETA2
        np.square(gradient, out=gradient)
        square += gradient
        np.sqrt(square, out=gradient)
        gradient += np.float32(EPSILON / root)
        np.divide(mean, gradient, out=gradient)
        gradient *= rates * np.float32(share)
        array -= gradient

    def _rmsprop(self, array: Array, gradient: Array, slots: list[Array], rates: Array) -> None:
        """Tieleman and Hinton, 2012; the slot holds the sum divided by one minus its decay."""
        square, root = slots[0], np.sqrt(1 - DECAY)
        square *= DECAY
        square += np.square(gradient)
        divisor = np.sqrt(square)
        divisor += np.float32(EPSILON / root)
        gradient /= divisor
        gradient *= rates / np.float32(root)
        array -= gradient

    def _adagrad(self, array: Array, gradient: Array, slots: list[Array], rates: Array) -> None:
        """Duchi et al., JMLR 2011."""
        square = slots[0]
        square += np.square(gradient)
        divisor = np.sqrt(square)
        divisor += np.float32(EPSILON)
        gradient /= divisor
        gradient *= rates
        array -= gradient


def _add_product(total: Array, factor: Array, array: Array) -> None:
    """Add ``factor * array``, in parts that the CPU caches."""
    rows = max(1, _PART // (array.shape[0] * array.shape[2]))
    for start in range(0, array.shape[1], rows):
        part = slice(start, start + rows)
        total[:, part] += factor * array[:, part]
