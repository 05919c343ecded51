"""One optimizer step, in as many parts as the device's memory needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from automl_tl.training.micro import MicroBatches

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.types import TrainJob
    from automl_tl_torch.capture import Replays
    from automl_tl_torch.data import Indices


class Loss:
    """Softmax cross-entropy of a job's training images, one value an image.

    Labels are smoothed first; each image's value is then multiplied by the weight of its class.

    Args:
        job: What is trained.
        indices: Of the device where logits are.
    """

    def __init__(self, job: TrainJob, indices: Indices) -> None:
        self._indices, device = indices, indices.device
        self.smoothing = job.label_smoothing
        self.labels = torch.from_numpy(job.train_labels).to(device)
        weights = job.class_weights
        self.weights = None if weights is None else torch.from_numpy(weights).to(device)

    def labels_at(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the int64 labels ``(N,)`` of the images at positions."""
        return self.labels[self._indices(positions)]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return float32 ``(N,)`` for logits ``(N, classes)`` of images with these labels."""
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        return losses if self.weights is None else losses * self.weights[labels]


def micro_batches(batch_size: int) -> MicroBatches:
    """Divide batches; halves the parts when a device's memory runs out."""
    return MicroBatches(batch_size, _out_of_memory, _release)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Step:
    """Forward, backward and update over one batch, as if its parts were one.

    Args:
        optimizer: Its parameters' gradients are cleared before each step.
        loss: One value an image.
        micro: How batches are divided.
        scaler: Scales float16 gradients; disabled for other types.
        replays: Computes the gradients of whole batches.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        micro: MicroBatches,
        scaler: torch.amp.GradScaler,
        replays: Replays,
    ) -> None:
        self.optimizer = optimizer
        self.loss = loss
        self.micro = micro
        self.scaler = scaler
        self.replays = replays

    def __call__(
        self,
        take: Callable[[NDArray[np.int64]], Tensor],
        forward: Callable[[Tensor], Tensor],
        positions: NDArray[np.int64],
        learning_rate: float,
    ) -> Tensor:
        """Take a step over the training images at positions.

        Args:
            take: Maps positions to what the network sees.
            forward: Maps that to float32 logits.
            positions: int64, of the batch.
            learning_rate: Of this step.

        Returns:
            The sum of the batch's losses, a scalar on the device, until the next step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        total = self.micro.fit(lambda: self._gradients(take, forward, positions))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    def _gradients(
        self,
        take: Callable[[NDArray[np.int64]], Tensor],
        forward: Callable[[Tensor], Tensor],
        positions: NDArray[np.int64],
    ) -> Tensor:
        def backward(x: Tensor, labels: Tensor) -> Tensor:
            loss = self.loss(forward(x), labels).sum()
            scaled = self.scaler.scale(loss / len(positions))
            scaled.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        try:
            if self.micro.size >= len(positions):
                labels = self.loss.labels_at(positions)
                return self.replays(backward, take(positions), labels)
            self.optimizer.zero_grad(set_to_none=True)
            total = torch.zeros((), device=self.loss.labels.device)
            for part in self.micro.parts(positions):
                total += backward(take(part), self.loss.labels_at(part))
            return total
        except torch.OutOfMemoryError:
            self.replays.drop()
            raise
