"""B0: Optuna and torchvision as the tutorials have it; images are decoded in every epoch.

The frozen part runs in inference mode in every epoch, which many scripts forget. Channels last,
because it is faster here, and workers decode while the network computes. On a GPU also pinned
memory and mixed precision.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from inputs import Row, arguments, optimize
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import mobilenet_v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CUTS = (0, 4, 7, 10, 14, 17, 19)
"""Blocks of ``features`` from which a trial may fine-tune; 19 is none."""


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """Decodes an image whenever it is asked for, as ``torchvision.datasets.ImageFolder``."""

    def __init__(self, rows: list[Row], size: int) -> None:
        self.rows = rows
        steps = [transforms.Resize((size, size)), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.rows[index]
        return self.transform(Image.open(path).convert("RGB")), label


class Pixels:
    """Decoded once; yields batches of normalised pixels from RAM."""

    def __init__(self, rows: list[Row], size: int, batch_size: int, shuffle: bool) -> None:
        steps = [transforms.Resize((size, size)), transforms.PILToTensor()]
        decode = transforms.Compose(steps)
        self.pixels = torch.stack([decode(Image.open(path).convert("RGB")) for path, _ in rows])
        self.labels = torch.tensor([label for _, label in rows])
        self.mean = torch.tensor(MEAN).view(3, 1, 1) * 255
        self.std = torch.tensor(STD).view(3, 1, 1) * 255
        self.batch_size, self.shuffle = batch_size, shuffle

    def __iter__(self) -> Any:
        count = len(self.labels)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for picked in order.split(self.batch_size):
            yield (self.pixels[picked].float() - self.mean) / self.std, self.labels[picked]


def build_head(params: dict[str, Any], classes: int, width: int = 1280) -> nn.Sequential:
    """Return the head: linear, or one hidden layer."""
    if params["head_layers"] == 0:
        return nn.Sequential(nn.Dropout(params["dropout"]), nn.Linear(width, classes))
    units = params["head_units"]
    hidden = [nn.Linear(width, units), nn.ReLU(), nn.Dropout(params["dropout"])]
    return nn.Sequential(*hidden, nn.Linear(units, classes))


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return an optimizer without weight decay."""
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=0.9)
    if name == "adagrad":
        return torch.optim.Adagrad(groups, initial_accumulator_value=0.1)
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=0.0)
    return torch.optim.Adam(groups)


def mixed() -> AbstractContextManager[object]:
    """Return mixed precision on a GPU, nothing elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if DEVICE.type == "cuda" else nullcontext()


def main() -> None:
    """Train the trials."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(options.threads)
    cached: dict[tuple[str, int], Pixels] = {}

    def images(split: str, batch_size: int) -> Any:
        rows, training = options.rows[split], split == "train"
        if not options.pixels_cached:
            photos = Photos(rows, options.size)
            workers = options.threads
            return DataLoader(
                photos, batch_size, training, num_workers=workers, pin_memory=DEVICE.type == "cuda"
            )
        if (split, batch_size) not in cached:
            cached[split, batch_size] = Pixels(rows, options.size, batch_size, training)
        return cached[split, batch_size]

    def train(params: dict[str, Any], seed: int) -> tuple[list[float], list[float]]:
        torch.manual_seed(seed)
        weights = "DEFAULT" if options.weights == "imagenet" else None
        features = mobilenet_v2(weights=weights).features
        features = features.to(DEVICE, memory_format=torch.channels_last)
        features.eval()  # BatchNorm stays fixed
        cut = params.get("cut", len(features))
        frozen, tuned = features[:cut], features[cut:]
        features.requires_grad_(False)
        tuned.requires_grad_(True)
        head = build_head(params, len(options.classes)).to(DEVICE)
        rate = params["learning_rate"]
        groups: list[dict[str, Any]] = [{"params": head.parameters(), "lr": rate}]
        if len(tuned):
            rate *= params.get("fine_tune_factor", 1.0)
            groups.append({"params": tuned.parameters(), "lr": rate})
        optimizer = build_optimizer(params["optimizer"], groups)

        def logits(x: torch.Tensor) -> torch.Tensor:
            x = x.to(DEVICE, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with mixed():
                with torch.no_grad():
                    x = frozen(x)
                x = tuned(x)
            return head(x.float().mean((2, 3)))

        training, validation = images("train", params["batch_size"]), images("validation", 64)
        accuracies, seconds = [], []
        for _ in range(options.epochs):
            started = time.perf_counter()
            head.train()
            for x, y in training:
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits(x), y.to(DEVICE)).backward()
                optimizer.step()
            head.eval()
            right = 0
            with torch.no_grad():
                for x, y in validation:
                    right += int((logits(x).argmax(1).cpu() == y).sum())
            accuracies.append(right / len(options.rows["validation"]))
            seconds.append(time.perf_counter() - started)
        return accuracies, seconds

    fine_tunes = options.sample or any("cut" in trial for trial in options.trials)
    optimize(options, train, CUTS if fine_tunes else ())


if __name__ == "__main__":
    main()
