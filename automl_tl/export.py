"""Export a trained model, and prove that the exported file computes the same.

The file is written into a folder of its own beside the destination, opened in its own runtime and
run on real images; only a file that agrees with the trained model is moved into place.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import card
from automl_tl.errors import ExportError, UsageError
from automl_tl.identify import identify
from automl_tl.onnx_model import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.predict import Classifier
    from automl_tl.protocols import Backend

TOLERANCE = 1e-3
"""Largest difference of a logit that is allowed, relative to the largest logit."""

IMAGES = 256
"""Most images that are compared."""

_BATCH = 32


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported and how well it agrees with the trained model.

    Attributes:
        path: The exported file.
        card: The model card beside it.
        format: Export format.
        bytes: Size of the file.
        runtime: What opened it for the comparison.
        images: Number of images compared.
        difference: Largest absolute difference of a logit.
        scale: Largest absolute logit of the trained model.
        agreement: Images with the same class.
        ties: Images with another class whose two logits are equal within the tolerance.
        accuracy: Of the exported file on these images.
    """

    path: Path
    card: Path
    format: str
    bytes: int
    runtime: str
    images: int
    difference: float
    scale: float
    agreement: int
    ties: int
    accuracy: float


def export_model(
    model_file: Path,
    format: str,
    destination: Path,
    backend: Backend,
    suffixes: Mapping[str, str],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    facts: ModelFacts,
) -> ExportReport:
    """Export a trained model with its model card, and prove it equal first.

    Args:
        model_file: What ``Trainer.save`` wrote.
        format: One of ``suffixes``.
        destination: The file to write; replaced only by a proven one. Its folder is made if
            missing. The model card lies beside it, with the suffix ``.md``.
        backend: That trained the model; on the CPU, in float32, or a difference in precision
            counts against the exported file.
        suffixes: The backend's formats and their file suffixes.
        pixels: uint8 ``(n, S, S, 3)``, real images that were not trained on; 256 are used.
        labels: int64 ``(n,)``, their classes.
        facts: Metadata for the exported file.

    Raises:
        UsageError: When the format is unknown or the destination cannot be a file of it.
        ExportError: When the file cannot be written or does not agree; nothing is left behind.
    """
    card_path = _check(format, destination, suffixes)
    pixels, labels = pixels[:IMAGES], labels[:IMAGES]
    if not len(pixels):
        raise ExportError("Expected validation images to prove the export with, but got none.")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".automl-tl-", dir=destination.parent, ignore_cleanup_errors=True
        ) as folder:
            aside = Path(folder).resolve() / f"model{suffixes[format]}"
            reference = _write(backend, model_file.resolve(), format, aside, pixels, facts)
            runtime, exported = _open(backend, aside, facts)
            runs = [exported.logits(pixels[:n], batch) for n, batch in _runs(len(pixels))]
            report = ExportReport(
                path=destination,
                card=card_path,
                format=format,
                bytes=aside.stat().st_size,
                runtime=runtime,
                accuracy=float((runs[0].argmax(axis=1) == labels).mean()),
                **compare(reference, runs, format),
            )
            text = card.render(facts, report)
            card_aside = Path(folder) / "card.md"
            card_aside.write_text(text, encoding="utf-8", newline="\n")
            aside.replace(destination)
            card_aside.replace(card_path)
    except OSError as error:
        raise ExportError(
            f"Expected to write {destination}, but: {error.strerror or error}; choose another "
            "place."
        ) from error
    return report


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


def _runs(count: int) -> tuple[tuple[int, int], ...]:
    """How many images to run at which batch size: several sizes prove that it is dynamic."""
    return (count, _BATCH), (min(count, 3), 1), (min(count, 3), 3)


def _check(format: str, destination: Path, suffixes: Mapping[str, str]) -> Path:
    """Refuse what cannot work before any work is done; returns the model card's path."""
    if format not in suffixes:
        raise UsageError(
            f"Expected a format among {', '.join(suffixes)}, but got {format!r}; choose one."
        )
    if os.path.isdir(destination):
        example = destination / f"model{suffixes[format]}"
        raise UsageError(f"Expected a file to write, but {destination} is a folder; use {example}.")
    others = {suffix: name for name, suffix in suffixes.items() if suffix != suffixes[format]}
    suffix = destination.suffix.lower()
    if suffix in others or suffix == ".md":
        meaning = f"format {others[suffix]}" if suffix in others else "the model card"
        raise UsageError(
            f"Expected a file name for the format {format}, such as "
            f"{destination.with_suffix(suffixes[format])}, but {destination} says {meaning}."
        )
    card_path = destination.with_suffix(".md")
    if os.path.exists(card_path) and not card.is_card(card_path):
        raise UsageError(
            f"Expected to write the model card to {card_path}, but that file is something else; "
            "choose another name for the model or move that file."
        )
    return card_path


def _write(
    backend: Backend,
    model_file: Path,
    format: str,
    aside: Path,
    pixels: NDArray[np.uint8],
    facts: ModelFacts,
) -> NDArray[np.float32]:
    """Export to ``aside``; returns the trained model's logits."""
    try:
        trained = backend.load(model_file)
        reference = trained.logits(pixels, _BATCH)
        trained.export(format, aside, facts.metadata())
    except ExportError:
        raise
    except Exception as error:  # an exporter may raise anything
        raise ExportError(f"The export to {format} failed ({_reason(error)}).") from error
    written = sorted(path.name for path in aside.parent.iterdir())
    if written != [aside.name]:
        raise ExportError(
            f"Expected the {format} exporter to write the one file {aside.name}, but it wrote "
            f"{', '.join(written) or 'nothing'}."
        )
    return reference


def _open(backend: Backend, aside: Path, facts: ModelFacts) -> tuple[str, Classifier]:
    """Open an exported file as a stranger would; returns the runtime's name and the model."""
    file = identify(aside)
    if file.facts.metadata() != facts.metadata():
        raise ExportError(
            f"Expected the metadata of the trained model inside {aside.name}, but it differs."
        )
    if file.data is not None:
        return "onnxruntime", OnnxModel(file.data, file.facts, aside.name, "cpu")
    return facts.backend, backend.load(aside)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
