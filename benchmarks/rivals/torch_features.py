"""B2: the expert's script; bottleneck features are extracted once by hand, heads train on them."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from inputs import Row, arguments, clock, optimize
from torch import nn
from torch.utils.data import DataLoader
from torch_folder import Photos, build_head, build_optimizer
from torchvision.models import mobilenet_v2


def extract(features: nn.Module, rows: list[Row], size: int, workers: int) -> torch.Tensor:
    """Return the pooled features of all images, float32 ``(n, 1280)``."""
    found = []
    with torch.inference_mode():
        for x, _ in DataLoader(Photos(rows, size), 32, num_workers=workers):
            found.append(features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3)))
    return torch.cat(found).clone()


def main() -> None:
    """Extract, then train the trials."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(options.threads)
    wall, cpu = clock()
    weights = "DEFAULT" if options.weights == "imagenet" else None
    network = mobilenet_v2(weights=weights).features
    network = network.to(memory_format=torch.channels_last).eval()
    stored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for split in ("train", "validation"):
        rows = options.rows[split]
        found = extract(network, rows, options.size, options.threads)
        stored[split] = found, torch.tensor([label for _, label in rows])
    after, cpu_after = clock()
    report = {"trial": None, "seconds": after - wall, "cpu": cpu_after - cpu}
    print(json.dumps(report), flush=True)
    (x_train, y_train), (x_validation, y_validation) = stored["train"], stored["validation"]

    def train(params: dict[str, Any], seed: int) -> tuple[list[float], list[float]]:
        torch.manual_seed(seed)
        head = build_head(params, len(options.classes))
        groups = [{"params": head.parameters(), "lr": params["learning_rate"]}]
        optimizer = build_optimizer(params["optimizer"], groups)
        accuracies, seconds = [], []
        for _ in range(options.epochs):
            started = time.perf_counter()
            head.train()
            for picked in torch.randperm(len(y_train)).split(params["batch_size"]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(x_train[picked]), y_train[picked]).backward()
                optimizer.step()
            head.eval()
            with torch.inference_mode():
                right = (head(x_validation).argmax(1) == y_validation).float().mean()
            accuracies.append(float(right))
            seconds.append(time.perf_counter() - started)
        return accuracies, seconds

    optimize(options, train)


if __name__ == "__main__":
    main()
