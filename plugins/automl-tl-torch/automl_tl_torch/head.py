"""The head: pooling, hidden layers with dropout, and a linear classifier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from automl_tl.training.head import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.types import Head


class HeadModule(nn.Module):
    """Maps a backbone's output, or its pooled features, to logits.

    Dense layers start from the weights of ``automl_tl.training.head`` and zero biases, unless
    others are given.

    Args:
        head: What to build.
        output_shape: Of one image's tensor at the backbone's end: ``(C, H, W)`` or ``(D,)``.
        seed: Of the weights.
        weights: As ``TrainJob.head_weights``.
    """

    def __init__(
        self,
        head: Head,
        output_shape: Sequence[int],
        seed: int,
        weights: Sequence[NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__()
        self.pooling = head.pooling
        self.scale = head.scale
        width = head_inputs(head, output_shape)
        layers: list[nn.Module] = []
        for units in head.units:
            layers += [_dense(width, units), nn.ReLU(), nn.Dropout(head.dropout)]
            width = units
        if not head.units:
            layers.append(nn.Dropout(head.dropout))
        layers.append(_dense(width, head.classes))
        self.layers = nn.Sequential(*layers)
        if weights is None:
            drawn = kernels(head, head_inputs(head, output_shape), seed)
            weights = [
                array
                for kernel in drawn
                for array in (kernel, np.zeros(kernel.shape[1], np.float32))
            ]
        _fill(self, weights)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)``, ``(N, D)`` or pooled features to float32 ``(N, classes)``."""
        logits: Tensor = self.layers(pool(x.float(), self.pooling) * self.scale)
        return logits


def head_inputs(head: Head, output_shape: Sequence[int]) -> int:
    """Return the width that enters a head's first dense layer."""
    return math.prod(output_shape) if head.pooling == "flatten" else int(output_shape[0])


def pool(x: Tensor, pooling: str) -> Tensor:
    """Pool a spatial map ``(N, C, H, W)``; anything else is returned as it is."""
    if x.ndim != 4:
        return x
    if pooling == "avg":
        return x.mean((2, 3))
    if pooling == "max":
        return x.amax((2, 3))
    return x.flatten(1)


def _dense(inputs: int, outputs: int) -> nn.Module:
    """A dense layer without values, which draws nothing from the caller's generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")


def _fill(module: HeadModule, weights: Sequence[NDArray[np.float32]]) -> None:
    dense = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, kernel, bias in zip(dense, weights[::2], weights[1::2], strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
