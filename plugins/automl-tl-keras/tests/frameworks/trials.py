"""Trains the same trials in one framework: `trials.py torch|keras OUT.npz JSON`.

The JSON object has lists ``optimizers`` (``sgd``, or ``adam+sgd`` for one a phase) and ``seeds``,
the number of training ``images``, the ``dropout`` rate and the numbers of ``epochs`` of both
phases. The images are handwritten digits, the network is ``tiny``: first the head learns, then
everything. ``OUT.npz`` has two arrays a trial, ``OPTIMIZER SEED logits`` and ``... losses``, one
row an epoch, and ``labels`` of the validation images.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob

SIDE = 16
VALIDATION = 200


class Seen:
    """Keeps the reports of a trial."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def need(self, source: Source) -> None:
        """All arrays are there."""

    def epoch(self, report: Any) -> None:
        """Keep it."""
        self.reports.append(report)

    def step(self, what: str, done: int, total: int) -> None:
        """Nobody looks."""


def framework(name: str) -> tuple[Any, Any]:
    """Return a backend and its ``tiny``."""
    if name == "keras":
        from automl_tl_keras.backend import KerasBackend
        from automl_tl_keras.tiny import tiny_backbone

        backbone = tiny_backbone()
        return KerasBackend(lambda _: backbone), backbone
    from automl_tl_torch.backend import TorchBackend
    from automl_tl_torch.tiny import tiny_backbone as torch_tiny

    other = torch_tiny()
    return TorchBackend(lambda _: other), other


def main(name: str, out: Path, wanted: dict[str, Any]) -> None:
    """Train all trials."""
    backend, backbone = framework(name)
    backend.configure("cpu", 1)
    digits = load_digits()
    images, count = digits.images[:, :, :, None] * np.ones(3) * 15.9, wanted["images"]
    pixels = images.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    assert pixels.shape[1] == SIDE
    spec = NetworkSpec(backbone.key, SIDE, backbone.pretrained.path(), "weights")
    info = backend.describe(spec)
    found: dict[str, Any] = {"labels": digits.target[count : count + VALIDATION]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npy"
        np.save(path, pixels)
        train = Source(path, 0, rows=np.arange(count))
        validation = Source(path, 0, rows=np.arange(count, count + VALIDATION))
        for optimizer in wanted["optimizers"]:
            first, _, second = optimizer.partition("+")
            for seed in wanted["seeds"]:
                job = TrainJob(
                    network=spec,
                    info=info,
                    head=Head(10, (24,), wanted["dropout"], "flatten", 0.6),
                    fine_tune_at=0,
                    warmup=PhaseSpec(wanted["epochs"][0], 1e-3),
                    fine_tuning=PhaseSpec(wanted["epochs"][1], 1e-4),
                    optimizer=first,
                    fine_tune_optimizer=second or None,
                    schedule="cosine",
                    weight_decay=1e-2,
                    batch_size=16,
                    label_smoothing=0.1,
                    class_weights=np.linspace(0.5, 1.5, 10, dtype=np.float32),
                    seed=seed,
                    train_labels=digits.target[:count],
                    head_train=train,
                    head_validation=validation,
                    tune_train=(train,),
                    tune_validation=validation,
                )
                seen = Seen()
                backend.trainer(job).run(seen)
                key = f"{optimizer} {seed}"
                found[f"{key} logits"] = np.stack([one.validation_logits for one in seen.reports])
                found[f"{key} losses"] = np.array([one.train_loss for one in seen.reports])
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
