"""The network behind ``torch/tiny``; ``automl_tl.tiny`` says what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from automl_tl.tiny import CLASSES, EPSILON, STAGES, STEM

if TYPE_CHECKING:
    from torch import Tensor


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Convolution and batch normalisation."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out, eps=EPSILON),
    ]


class Residual(nn.Module):
    """Two convolutions around an identity: ``relu(x + f(x))`` (He et al., CVPR 2016).

    The shape stays as it is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, channels), nn.ReLU(), *_convolution(channels, channels)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class Tiny(nn.Module):
    """Stem and three stages, each: halve, widen, one residual block; then mean and classifier.

    Takes normalised float images ``(N, 3, S, S)`` with ``S >= 8``; ``features`` gives
    ``(N, 112, S // 8, S // 8)``, the network ``(N, classes)`` logits.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("stem", nn.Sequential(*_convolution(3, STEM), nn.ReLU()))
        channels = STEM
        for number, width in enumerate(STAGES, start=1):
            stage = nn.Sequential(
                nn.MaxPool2d(2), *_convolution(channels, width), nn.ReLU(), Residual(width)
            )
            self.features.add_module(f"stage{number}", stage)
            channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        out: Tensor = self.classifier(self.flatten(self.pool(self.features(x))))
        return out
