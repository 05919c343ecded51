"""Whether an exported file computes the same as the model it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Largest difference of a logit that is allowed, relative to the largest logit."""


def compare(
    reference: NDArray[np.float32], runs: Sequence[NDArray[np.float32]], format: str = "exported"
) -> dict[str, Any]:
    """Hold the logits of an exported file against those of the trained model.

    Args:
        reference: ``(n, classes)`` of the trained model.
        runs: ``(m, classes)`` of the exported one for the first ``m <= n`` images each; the
            first of them for all.
        format: How to call the exported file in an error.

    Returns:
        ``images``, ``difference``, ``scale``, ``agreement`` and ``ties`` of ``ExportReport``.

    Raises:
        ExportError: When a logit differs by more than ``TOLERANCE`` times the largest one, or an
            image gets another class although its logits tell the two apart.
    """
    if any(run.shape != reference[: len(run)].shape for run in runs) or len(runs[0]) != len(
        reference
    ):
        raise ExportError(
            f"Expected logits of shape {reference.shape} from the {format} file, but got "
            f"{[run.shape for run in runs]}; nothing was written."
        )
    if not all(np.isfinite(logits).all() for logits in (reference, *runs)):
        raise ExportError(
            f"Expected finite logits from the trained model and from the {format} file, but some "
            "are NaN or infinite; nothing was written."
        )
    scale = float(np.abs(reference).max())
    limit = TOLERANCE * scale
    difference = max(float(np.abs(run - reference[: len(run)]).max()) for run in runs)
    rows, old, new = np.arange(len(reference)), reference.argmax(axis=1), runs[0].argmax(axis=1)
    margin = reference[rows, old] - reference[rows, new]
    ties = int(((old != new) & (margin <= limit)).sum())
    other = int((margin > limit).sum())
    if difference > limit or other:
        raise ExportError(
            f"The {format} file does not agree with the trained model on {len(reference)} images: "
            f"its logits differ by up to {difference:.3g}, where {limit:.3g} is allowed "
            f"({TOLERANCE:g} of the largest, {scale:.3g}), and {other} images get another class; "
            "nothing was written, so try another format."
        )
    return {
        "images": len(reference),
        "difference": difference,
        "scale": scale,
        "agreement": int((old == new).sum()),
        "ties": ties,
    }
