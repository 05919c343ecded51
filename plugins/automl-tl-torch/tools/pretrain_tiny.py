"""Pretrain ``torch/tiny`` on synthetic images and write its weights.

    python tools/pretrain_tiny.py --out ../../automl_tl/tiny/weights.safetensors

Every batch is drawn anew from (seed, step), on one thread, so that the same versions on the same
machine write the same file. The accuracy printed is that of the stored weights, on images of the
same classes that training has not seen.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from outlines import CHARACTERS, shapes
from safetensors.torch import save_file
from synthetic import class_names, generate
from torch.nn import functional

from automl_tl.tiny import CLASSES, PREPROCESS
from automl_tl_torch.tiny import build

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 128
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.05
HELD_OUT_BATCHES = 60
HELD_OUT_SEED = 1_000_000_007


def batch(*seed: int) -> tuple[Tensor, Tensor]:
    """Draw normalised images ``(BATCH, 3, 32, 32)`` and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, BATCH)
    pixels = torch.from_numpy(generate(labels, rng)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    return (pixels - mean) / std, torch.from_numpy(labels)


def pretrain(steps: int, seed: int) -> nn.Module:
    """Train from random weights with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.15
    )
    start, average = time.perf_counter(), 0.0
    for step in range(steps):
        images, labels = batch(seed, step)
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        cycle.step()
        average += (loss.item() - average) * max(0.02, 1 / (step + 1))
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - start
            print(f"step {step + 1}/{steps}  loss {average:.3f}  {seconds:.0f} s", flush=True)
    return network.eval()


def save(network: nn.Module, path: Path) -> None:
    """Write matrices and kernels as float16, vectors as float32; counters are left out."""
    tensors = {
        name: (tensor.half() if tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, aside)
    aside.chmod(0o644)  # safetensors makes files that only their owner can read
    aside.replace(path)


@torch.inference_mode()
def evaluate(network: nn.Module) -> dict[str, float]:
    """Return the accuracy on held-out images, over all classes and for each kind of them."""
    kinds = {"characters": CHARACTERS, "shapes": CHARACTERS + len(shapes()), "rest": CLASSES}
    answers, truth = [], []
    for number in range(HELD_OUT_BATCHES):
        images, labels = batch(HELD_OUT_SEED, number)
        answers.append(network(images).argmax(1))
        truth.append(labels)
    labels = torch.cat(truth)
    right = (torch.cat(answers) == labels).double()
    accuracy = {"all": right.mean().item()}
    first = 0
    for kind, last in kinds.items():
        accuracy[kind] = right[(labels >= first) & (labels < last)].mean().item()
        first = last
    return accuracy


def main() -> None:
    """Parse the command line, train, write and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if len(class_names()) != CLASSES:
        parser.error(f"the network has {CLASSES} classes, the images {len(class_names())}")
    save(pretrain(arguments.steps, arguments.seed), arguments.out)
    accuracy = evaluate(build(arguments.out))
    size = arguments.out.stat().st_size
    figures = ", ".join(f"{kind} {value:.4f}" for kind, value in accuracy.items())
    print(f"{arguments.out}: {size} bytes; held-out accuracy: {figures}")


if __name__ == "__main__":
    main()
