"""The figures on the split that the search never saw: computed once, for the best trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import metrics
from automl_tl.plugins import get_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.host import BackendHost
    from automl_tl.networks import Networks
    from automl_tl.study import StudyData, StudyDirectory

CHUNK = 512


def test_trial(
    directory: StudyDirectory,
    data: StudyData,
    number: int,
    spec: Mapping[str, Any],
    networks: Networks,
    host: BackendHost,
) -> None:
    """Evaluate a trial's model on the test split and write the study's result.

    The result counts how often the split was looked at: a resumed study whose best trial changed
    has looked more than once.

    Args:
        directory: The study directory, with the trial's model.
        data: The study's data.
        number: Of the trial.
        spec: What it trained.
        networks: With the pixel arrays.
        host: Of its backend.

    Raises:
        AutoMLError: When the model cannot be opened or run.
    """
    size = spec["image_size"] or get_plugins().backbone(spec["backbone"]).input_size
    pixels, _ = networks.arrays[size, spec["resize"]]
    rows = data.rows("test")
    logits = _logits(directory.model(number), host, pixels, rows)
    labels = data.labels[rows]
    correct = int((logits.argmax(axis=1) == labels).sum())
    before = directory.result() or {}
    np.save(directory.trial(number) / "test_logits.npy", logits)
    directory.write_result(
        {
            "trial": number,
            "test": {
                **metrics.from_logits(logits, labels),
                "interval": list(metrics.interval(correct, len(rows))),
            },
            "evaluations": before.get("evaluations", 0) + 1,
        }
    )


def _logits(
    model: Path, host: BackendHost, pixels: Path, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return float32 ``(len(rows), classes)``."""
    opened = host.load(model)
    array = np.load(pixels, mmap_mode="r")
    parts = [
        opened.logits(np.ascontiguousarray(array[rows[start : start + CHUNK]]))
        for start in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
