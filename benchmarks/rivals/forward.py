"""The arithmetic limit of A5: seconds of plain forward passes, of the network and its suffix."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext

import torch
from torch import nn
from torchvision.models import mobilenet_v2


def seconds(network: nn.Module, x: torch.Tensor) -> float:
    """Return the seconds of one pass, an image; on a GPU in mixed precision."""
    cuda = x.device.type == "cuda"
    started = time.perf_counter()
    with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
        network(x)
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / len(x)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cut", type=int, help="first block of the suffix")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = mobilenet_v2().features.eval().to(device, memory_format=torch.channels_last)
    x = torch.rand(32, 3, options.size, options.size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    wholes, suffixes = [], []
    with torch.no_grad():
        below, above = features[: options.cut](x), features[options.cut :]
        for _ in range(options.rounds + 2):  # in turn, and the first two only warm up
            wholes.append(seconds(features, x))
            suffixes.append(seconds(above, below))
    found = {"whole": statistics.median(wholes[2:]), "suffix": statistics.median(suffixes[2:])}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
