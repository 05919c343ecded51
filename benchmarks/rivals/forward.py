"""The arithmetic limit of A5: seconds of plain forward passes, of the network and its suffix."""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torchvision.models import mobilenet_v2


def seconds(network: nn.Module, x: torch.Tensor, rounds: int) -> float:
    """Return the median seconds of an image."""
    found = []
    with torch.no_grad():
        for _ in range(rounds + 2):
            started = time.perf_counter()
            network(x)
            found.append((time.perf_counter() - started) / len(x))
    return statistics.median(found[2:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cut", type=int, help="first block of the suffix")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    features = mobilenet_v2().features.eval().to(memory_format=torch.channels_last)
    x = torch.rand(32, 3, options.size, options.size)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        below = features[: options.cut](x)
    whole = seconds(features, x, options.rounds)
    suffix = seconds(features[options.cut :], below, options.rounds)
    print(json.dumps({"whole": whole, "suffix": suffix}))


if __name__ == "__main__":
    main()
