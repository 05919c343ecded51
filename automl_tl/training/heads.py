"""Heads on stored features, trained in NumPy: several at once, in no framework's process.

A head on stored features is the same computation in every framework, and a small one: calling
into a framework costs more than its arithmetic. So the core does it, once for all of them. Heads
of one shape are stacked and see the same batches, as in DINOv2's linear evaluation (Oquab et al.,
2023).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.training.head import kernels
from automl_tl.training.updates import Update

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from automl_tl.types import TrainJob

    Array = NDArray[np.float32]

_DRAWS = 1 << 16


def apply(weights: Sequence[Array], features: Array) -> Array:
    """Return a head's logits ``(n, classes)`` for features ``(n, inputs)``, without dropout.

    Args:
        weights: As ``TrainJob.head_weights``.
        features: float32, scaled.
    """
    x = features
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = (x if x is features else np.maximum(x, 0)) @ kernel + bias
    return x


class HeadStack:
    """Heads of one shape that train on the same batches.

    Each head computes what it would compute alone. Arrays have a leading axis of ``k`` heads.
    Losses, optimizers and their constants are those of the backends: Keras's, and PyTorch's with
    Keras's constants; weight decay is decoupled for ``adamw`` and L2 otherwise, and spares biases.

    Args:
        jobs: One a head. They agree in ``head.units``, ``head.classes``, ``class_weights`` and
            ``seed``; heads of one optimizer are neighbours.
        inputs: Width of the features.

    Raises:
        UsageError: For an unknown optimizer.
    """

    def __init__(self, jobs: Sequence[TrainJob], inputs: int) -> None:
        first = jobs[0]
        self._classes = first.head.classes
        self._class_weights = first.class_weights
        self._smoothing = _column([job.label_smoothing for job in jobs])
        self._rates = [job.head.dropout for job in jobs]
        self._decay = _column([job.weight_decay for job in jobs])
        self._weights: list[Array] = []
        for kernel in kernels(first.head, inputs, first.seed):
            self._weights.append(np.repeat(kernel[None], len(jobs), axis=0))
            self._weights.append(np.zeros((len(jobs), 1, kernel.shape[1]), np.float32))
        # New arrays for every step would cost as much as the products: the system clears them.
        self._gradients = [np.empty_like(array) for array in self._weights]
        self._updates = [
            Update(name, len(list(same)), self._weights)
            for name, same in groupby(job.optimizer for job in jobs)
        ]

    def __len__(self) -> int:
        return len(self._rates)

    def weights(self, index: int) -> tuple[Array, ...]:
        """Return copies of one head's kernels and biases: ``kernel, bias, kernel, bias, ...``."""
        return tuple(
            (array[index] if number % 2 == 0 else array[index, 0]).copy()
            for number, array in enumerate(self._weights)
        )

    def drop(self, index: int) -> None:
        """Take a head out of the stack; those behind it move up."""
        self._weights = [np.delete(array, index, axis=0) for array in self._weights]
        self._gradients = [np.empty_like(array) for array in self._weights]
        self._smoothing = np.delete(self._smoothing, index, axis=0)
        self._decay = np.delete(self._decay, index, axis=0)
        del self._rates[index]
        for update in self._updates:
            if index < update.heads:
                update.drop(index)
                break
            index -= update.heads

    def train(
        self,
        batches: Iterator[tuple[Array, NDArray[np.int64]]],
        rates: NDArray[np.float64],
        key: Sequence[int],
    ) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Take an epoch's steps.

        Args:
            batches: float32 ``(n, inputs)`` features and int64 ``(n,)`` labels of each step.
            rates: ``(k, steps)`` learning rates.
            key: Seeds dropout. Heads share its draws and differ in their thresholds.

        Yields:
            Images done and ``(k,)`` sums of their losses so far, after every step.
        """
        random = np.random.Generator(np.random.SFC64(list(key)))
        total = np.zeros(len(self))
        done = 0
        for step, (features, labels) in enumerate(batches):
            total += self._step(features, labels, rates[:, step], random)
            done += len(labels)
            yield done, total

    def logits(self, features: Array) -> Array:
        """Return ``(k, n, classes)`` for features ``(n, inputs)``, without dropout."""
        x = features
        for kernel, bias in zip(self._weights[::2], self._weights[1::2], strict=True):
            if x is not features:
                np.maximum(x, 0, out=x)
            x = np.matmul(x, kernel)
            x += bias
        return x

    def _step(
        self,
        features: Array,
        labels: NDArray[np.int64],
        rates: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Forward, backward and update; returns each head's sum of losses."""
        hidden = len(self._weights) // 2 - 1
        x: Array = features
        inputs: list[Array] = []
        masks: list[Array | None] = []
        for layer in range(hidden + 1):
            if hidden == 0 or layer:
                mask = self._mask(x.shape[-2:], random)
                x = x if mask is None else x * mask
                masks.append(mask)
            inputs.append(x)
            x = np.matmul(x, self._weights[2 * layer])
            x += self._weights[2 * layer + 1]
            if layer < hidden:
                np.maximum(x, 0, out=x)
        losses, slope = self._loss(x, labels)
        gradients = self._gradients
        for layer in range(hidden, -1, -1):
            np.matmul(np.swapaxes(inputs[layer], -1, -2), slope, out=gradients[2 * layer])
            slope.sum(axis=1, keepdims=True, out=gradients[2 * layer + 1])
            if layer:
                slope = np.matmul(slope, np.swapaxes(self._weights[2 * layer], -1, -2))
                mask = masks[layer - 1]
                if mask is not None:
                    slope *= mask
                # A unit that dropout switched off passes nothing on either way.
                slope *= inputs[layer] > 0
        self._update(rates[:, None, None].astype(np.float32))
        return losses

    def _loss(self, logits: Array, labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], Array]:
        """Softmax cross-entropy of smoothed labels, times the class's weight.

        Returns:
            Each head's sum over the images, and the slope of the mean, ``(k, n, classes)``.
        """
        logits -= logits.max(axis=-1, keepdims=True)
        shares = np.exp(logits)
        sums = shares.sum(axis=-1, keepdims=True)
        logits -= np.log(sums)
        shares /= sums
        rows = np.arange(len(labels))
        picked = logits[:, rows, labels]
        smoothing = self._smoothing[:, :, 0]
        losses = -(1 - smoothing) * picked - smoothing * logits.mean(axis=-1)
        shares -= self._smoothing / self._classes
        shares[:, rows, labels] -= 1 - smoothing
        if self._class_weights is not None:
            weights = self._class_weights[labels]
            losses = losses * weights
            shares *= weights[:, None]
        shares /= len(labels)
        return losses.sum(axis=1, dtype=np.float64), shares

    def _mask(self, shape: Sequence[int], random: np.random.Generator) -> Array | None:
        """Draw what dropout multiplies by, ``(k, *shape)`` or, for one rate, ``shape``."""
        if not any(self._rates):
            return None
        drawn = random.integers(0, _DRAWS, shape, np.uint16)
        shared = self._rates[:1] if len(set(self._rates)) == 1 else self._rates
        masks = [(drawn >= round(rate * _DRAWS)) * np.float32(1 / (1 - rate)) for rate in shared]
        return masks[0] if len(masks) == 1 else np.stack(masks)

    def _update(self, rates: Array) -> None:
        start = 0
        for update in self._updates:
            part = slice(start, start + update.heads)
            weights = [array[part] for array in self._weights]
            gradients = [array[part] for array in self._gradients]
            update.step(weights, gradients, rates[part], self._decay[part])
            start = part.stop


def _column(values: Sequence[float]) -> Array:
    return np.array(values, np.float32)[:, None, None]
