"""The head: pooling, hidden layers with dropout, and a linear classifier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from automl_tl.types import Head

_WEIGHTS = 0x48454144
"""Sets the draws of the head's weights apart from others of the same seed ("HEAD")."""


class HeadModule(nn.Module):
    """Maps a backbone's output, or its pooled features, to logits.

    Dense layers start from Glorot uniform weights and zero biases, drawn from NumPy's
    ``default_rng([0x48454144, seed])`` layer after layer as ``(inputs, outputs)``, so that every
    framework can repeat them.

    Args:
        head: What to build.
        output_shape: Of one image's tensor at the backbone's end: ``(C, H, W)`` or ``(D,)``.
        seed: Of the weights.
    """

    def __init__(self, head: Head, output_shape: Sequence[int], seed: int) -> None:
        super().__init__()
        self.pooling = head.pooling
        width = head_inputs(head, output_shape)
        layers: list[nn.Module] = []
        for units in head.units:
            layers += [_dense(width, units), nn.ReLU(), nn.Dropout(head.dropout)]
            width = units
        if not head.units:
            layers.append(nn.Dropout(head.dropout))
        layers.append(_dense(width, head.classes))
        self.layers = nn.Sequential(*layers)
        _initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)``, ``(N, D)`` or pooled features to float32 ``(N, classes)``."""
        logits: Tensor = self.layers(pool(x.float(), self.pooling))
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


def _initialise(head: HeadModule, seed: int) -> None:
    random = np.random.default_rng([_WEIGHTS, seed])
    with torch.no_grad():
        for layer in head.layers:
            if isinstance(layer, nn.Linear):
                inputs, outputs = layer.in_features, layer.out_features
                limit = math.sqrt(6 / (inputs + outputs))
                weights = random.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
                layer.weight.copy_(torch.from_numpy(weights.T.copy()))
                layer.bias.zero_()
