"""Whether an exported file computes what the model computes, and that what its trial recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Largest difference of a logit that is allowed, relative to the largest logit."""
FLOAT32 = 0.03
"""Allowed difference to what was recorded, both as root mean squares.

Float32 itself explains 3e-6, float16 in stored activations and TF32 on a GPU up to 1e-2.
"""
MIXED = 0.3
"""Likewise of a trial whose layers computed in bfloat16 or float16: MobileNetV2 is off by 0.03."""


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


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a trial recorded while it trained.

    Attributes:
        trial: Its number.
        logits: ``(n, classes)``, of the images that an export is proved with.
        precision: What its layers computed in, as ``TrainFacts.precision``; None for unknown.
    """

    trial: int
    logits: NDArray[np.float32]
    precision: str | None


def hold_to_recorded(reference: NDArray[np.float32], recorded: Recorded) -> None:
    """Hold the logits of a trained model against those that its trial's figures come from.

    They come another way: through stored activations, fused layers, and on a GPU in bfloat16. A
    network that trains as something else than it is saved as shows here, and so does one whose
    weights file or plugin changed since.

    Args:
        reference: ``(n, classes)`` of the trained model.
        recorded: Of the same images.

    Raises:
        ExportError: When they differ, in root mean square, by more than the recorded precision
            explains.
    """
    limit = FLOAT32 if recorded.precision == "float32" else MIXED
    difference, scale = (
        float(np.sqrt(np.square(logits, dtype=np.float64).mean()))
        for logits in (reference - recorded.logits, recorded.logits)
    )
    if not difference <= limit * scale:
        raise ExportError(
            f"Expected the model of trial {recorded.trial} to compute what it did while it was "
            f"trained, but on {len(reference)} validation images its logits differ by "
            f"{difference:.3g}, where {limit * scale:.3g} is allowed ({limit:.0%} of their size), "
            "so the figures are not this model's; nothing was written: put the backbone's plugin "
            "and weights file back as they were, or report it to the backbone's author."
        )
