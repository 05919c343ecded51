"""The split that the search never saw: looked at once, for the best trial, or counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import metrics
from automl_tl.files import DAMAGED_ARRAY, written_aside
from automl_tl.training.rows import Rows
from automl_tl.types import Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.host import BackendHost
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData
    from automl_tl.types import Split

CHUNK = 512


def test_trial(
    directory: StudyDirectory,
    data: StudyData,
    number: int,
    pixels: Path,
    host: BackendHost,
) -> None:
    """Evaluate a trial's model on the test split and write the study's result.

    The result counts how often the split was looked at: a resumed study whose best trial changed
    has looked more than once.

    Args:
        directory: The study directory, with the trial's model.
        data: The study's data.
        number: Of the trial.
        pixels: The trial's pixel array.
        host: Of its backend.

    Raises:
        AutoMLError: When the model cannot be opened or run.
    """
    logits = _logits(directory.model(number), host, pixels, data.rows("test"))
    write_test(directory, data, number, logits)


def write_test(
    directory: StudyDirectory, data: StudyData, number: int, logits: NDArray[np.float32]
) -> None:
    """Write the study's result from a trial's logits on the test split, and count the look."""
    before = directory.result() or {}
    np.save(directory.trial(number) / "test_logits.npy", logits)
    directory.write_result(
        {
            "trial": number,
            "test": figures(logits, data.labels[data.rows("test")]),
            "evaluations": before.get("evaluations", 0) + 1,
        }
    )


def trial_logits(
    directory: StudyDirectory, data: StudyData, number: int, pixels: Path, host: BackendHost
) -> NDArray[np.float32]:
    """Return a kept model's logits on the test split, stored in the trial's folder from then on.

    Whoever computes figures from them looks at the test split and has to count it.

    Args:
        directory: The study directory, with the trial's model.
        data: The study's data.
        number: Of the trial.
        pixels: The trial's pixel array.
        host: Of its backend.

    Raises:
        AutoMLError: When the model cannot be opened or run.
    """
    logits = read_logits(directory, data, number, "test")
    if logits is None:
        logits = _logits(directory.model(number), host, pixels, data.rows("test"))
        with written_aside(directory.trial(number) / "test_logits.npy") as aside:
            np.save(aside, logits)
    return logits


def figures(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures on the test split as the study's result and model files hold them."""
    correct = int((logits.argmax(axis=1) == labels).sum())
    return {
        **metrics.from_logits(logits, labels),
        "interval": list(metrics.interval(correct, len(labels))),
    }


def read_logits(
    directory: StudyDirectory, data: StudyData, number: int, split: Split
) -> NDArray[np.float32] | None:
    """Return a trial's stored logits on a split; None when there are none that fit the data."""
    try:
        path = directory.trial(number) / f"{split}_logits.npy"
        logits = np.load(path, mmap_mode="r", allow_pickle=False)  # allocates nothing yet
    except DAMAGED_ARRAY:
        return None
    fits = logits.shape == (len(data.rows(split)), len(data.classes)) and len(logits)
    return np.asarray(logits, np.float32) if fits and np.isfinite(logits).all() else None


def _logits(
    model: Path, host: BackendHost, pixels: Path, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return float32 ``(len(rows), classes)``."""
    opened = host.load(model)
    images = Rows(Source(pixels, 0, rows=rows))
    parts = [
        opened.logits(images.chunk(start, start + CHUNK)) for start in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
