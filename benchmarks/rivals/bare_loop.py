"""The least that a training step can be: plain PyTorch over one batch that lies on the device.

The same network, precision, layout and optimizer as ours, and nothing of what feeds it: no reading,
no shuffling, no labels that change, no looking at the loss.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torchvision import models

CUTS = {"mobilenet_v2": 10, "resnet50": 3}
"""First of the blocks in the upper half, of those that ``blocks`` lists."""


def blocks(name: str) -> list[nn.Module]:
    """Return the blocks of a torchvision network with random weights, without its classifier."""
    if name == "mobilenet_v2":
        return list(models.mobilenet_v2(weights=None).features)
    net = models.get_model(name, weights=None)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, net.layer1, net.layer2, net.layer3, net.layer4]


class BareLoop:
    """Trains on the same batch again and again.

    Args:
        name: ``mobilenet_v2`` or ``resnet50``.
        size: Side of the input in pixels.
        batch_size: Images a step.
        where: ``all`` trains every layer, ``pixels`` the upper half, whose lower half runs in
            every step, ``stored`` the upper half on its own.
        device: Where.
        graph: Replay the forward and backward pass as a CUDA graph.
    """

    def __init__(
        self, name: str, size: int, batch_size: int, where: str, device: torch.device, graph: bool
    ) -> None:
        cut = 0 if where == "all" else CUTS[name]
        found = blocks(name)
        place = {"device": device, "memory_format": torch.channels_last}
        self.below = nn.Sequential(*found[:cut]).to(**place).eval().requires_grad_(False)
        self.above = nn.Sequential(*found[cut:]).to(**place).eval()
        x = torch.randn(batch_size, 3, size, size, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            under = self.below(x)
            width = self.above(under).shape[1]
        self.x = under.contiguous(memory_format=torch.channels_last) if where == "stored" else x
        self.frozen = where == "pixels"
        self.labels = torch.arange(batch_size, device=device) % 5
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 5)).to(device)
        self.device = device
        parameters = [*self.above.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, 1e-6, fused=True)
        self.graph: Any = None
        if graph:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.passes()
            torch.cuda.current_stream().wait_stream(side)
            self.optimizer.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.passes()

    def passes(self) -> None:
        """Run the batch forward and backward."""
        cuda = self.device.type == "cuda"
        x = self.x
        with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
            if self.frozen:
                with torch.no_grad():
                    x = self.below(x)
            x = self.above(x)
        nn.functional.cross_entropy(self.head(x.float().mean((2, 3))), self.labels).backward()

    def seconds(self, steps: int) -> float:
        """Return what so many steps take."""
        self.wait()
        started = time.perf_counter()
        for _ in range(steps):
            if self.graph is None:
                self.optimizer.zero_grad(set_to_none=True)
                self.passes()
            else:
                self.graph.replay()
            self.optimizer.step()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
