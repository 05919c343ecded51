"""The lists of trials that everybody runs: the same parameters, in the same order."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Trial = dict[str, Any]

BLOCK = 20
_OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")
_RATES = {"adam": 2e-3, "adamw": 2e-3, "sgd": 1e-2, "rmsprop": 1e-3, "adagrad": 1e-2}
_UNITS = (64, 128, 256, 512)
CUT = 10
"""Block of MobileNetV2 that fine-tuning starts at: ``features[:10]`` of 19 stay frozen."""

COMMON = {
    "warmup_epochs": 0,
    "schedule": "constant",
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
}
"""Our settings under which a trial is what the rivals' scripts train."""


def frozen(count: int) -> list[Trial]:
    """Return trials that train a head: in each block of 20, half linear and half hidden.

    A longer list begins with the shorter one, and each block holds the same heads, optimizers and
    batch sizes, so that the next 20 cost what the first 20 cost.
    """
    draw = random.Random(0)
    found = []
    for number in range(count):
        place = number % BLOCK
        optimizer = _OPTIMIZERS[place % 5]
        trial: Trial = {
            "head_layers": (place // 5) % 2,
            "dropout": (0.0, 0.2, 0.4)[place % 3],
            "optimizer": optimizer,
            "learning_rate": _RATES[optimizer] * 2 ** draw.uniform(-1, 1),
            "batch_size": (16, 32, 64)[(place + place // 5) % 3],
        }
        if trial["head_layers"]:
            trial["head_units"] = _UNITS[place % 4]
        found.append(trial)
    return found


def tuned(count: int) -> list[Trial]:
    """Return trials with a linear head that fine-tune from ``CUT`` on."""
    return [
        {
            "head_layers": 0,
            "dropout": 0.2,
            "optimizer": "adam",
            "learning_rate": (1e-3, 5e-4, 2e-3)[number % 3],
            "batch_size": 32,
            "fine_tune_factor": 1.0,
            "cut": CUT,
        }
        for number in range(count)
    ]


def write(path: Path, listed: Iterable[Trial], epochs: int, seeds: Sequence[int] = (0,)) -> Path:
    """Write a list as the rivals read it, once through for every seed."""
    trials = [{**trial, "seed": seed} for seed in seeds for trial in listed]
    path.write_text(json.dumps({"epochs": epochs, "trials": trials}, indent=1))
    return path


def for_us(listed: Iterable[Trial]) -> list[Trial]:
    """Return a list as our command takes it: where to fine-tune is among the settings."""
    return [{name: value for name, value in t.items() if name != "cut"} for t in listed]
