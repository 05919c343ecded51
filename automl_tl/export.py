"""Export a trained model, and prove that the exported file computes the same.

The file is written into a folder of its own beside the destination, opened in its own runtime and
run on real images; only a file that agrees with the trained model is moved into place. "File" also
means the folder of a SavedModel.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl import card
from automl_tl.errors import ExportError, UsageError
from automl_tl.identify import identify
from automl_tl.parity import compare
from automl_tl.predict import open_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.predict import Classifier
    from automl_tl.protocols import Backend

IMAGES = 256
"""Most images that are compared."""

FOLDERS = frozenset({"savedmodel"})
"""Formats that are a folder."""

_BATCH = 32


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported and how well it agrees with the trained model.

    Attributes:
        path: The exported file.
        card: The model card beside it.
        format: Export format.
        bytes: Size of the file, or of all files in the folder.
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
        destination: The file to write; replaced only by a proven one, and a folder only if it is
            a SavedModel of automl-tl. Its parent is made if missing. The model card lies beside it
            and is called like it, with ``.md`` added.
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
    if format not in suffixes:
        raise UsageError(
            f"Expected a format that a {facts.backend} model can be exported to, "
            f"{', '.join(suffixes)}, but got {format!r}; choose one of these."
        )
    model_file = model_file.resolve()
    return prove(
        lambda aside, images: write(backend, model_file, format, aside, images, facts),
        lambda aside: _open(backend, aside, facts),
        format,
        destination,
        suffixes,
        pixels,
        labels,
        facts,
    )


def prove(
    write: Callable[[Path, NDArray[np.uint8]], NDArray[np.float32]],
    open: Callable[[Path], tuple[str, Classifier]],
    format: str,
    destination: Path,
    suffixes: Mapping[str, str],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    facts: ModelFacts,
) -> ExportReport:
    """Write a file aside, prove it equal, and move it into place with its model card.

    Args:
        write: Writes the file, alone in its folder, and returns the logits that it must give for
            the images.
        open: Opens it as a stranger would: the runtime's name and the model.
        format: As for ``export_model``, and so are the others.
        destination: See there.
        suffixes: See there.
        pixels: See there.
        labels: See there.
        facts: See there.

    Raises:
        UsageError: When the destination cannot be a file of the format.
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
            reference = write(aside, pixels)
            runtime, exported = open(aside)
            runs = [exported.logits(pixels[:n], batch) for n, batch in _runs(len(pixels))]
            report = ExportReport(
                path=destination,
                card=card_path,
                format=format,
                bytes=_size(aside),
                runtime=runtime,
                accuracy=float((runs[0].argmax(axis=1) == labels).mean()),
                **compare(reference, runs, format),
            )
            text = card.render(facts, report)
            card_aside = Path(folder) / "card.md"
            card_aside.write_text(text, encoding="utf-8", newline="\n")
            _move(aside, destination, Path(folder) / "replaced")
            card_aside.replace(card_path)
    except OSError as error:
        raise ExportError(
            f"Expected to write {destination}, but: {error.strerror or error}; choose another "
            "place."
        ) from error
    return report


def _runs(count: int) -> tuple[tuple[int, int], ...]:
    """How many images to run at which batch size: several sizes prove that it is dynamic."""
    return (count, _BATCH), (min(count, 3), 1), (min(count, 3), 3)


def _check(format: str, destination: Path, suffixes: Mapping[str, str]) -> Path:
    """Refuse what cannot work before any work is done; returns the model card's path."""
    suffix = destination.suffix.lower()
    others = {s: name for name, s in suffixes.items() if s != suffixes[format]}
    if suffix in others or suffix == ".md":
        meaning = f"format {others[suffix]}" if suffix in others else "the model card"
        raise UsageError(
            f"Expected a file name for the format {format}, such as "
            f"{destination.with_suffix(suffixes[format])}, but {destination} says {meaning}."
        )
    _check_free(format, destination, destination / f"model{suffixes[format]}")
    card_path = destination.with_name(f"{destination.name}.md")
    if os.path.exists(card_path) and not card.is_card(card_path):
        raise UsageError(
            f"Expected to write the model card to {card_path}, but that file is something else; "
            "choose another name for the model or move that file."
        )
    return card_path


def _check_free(format: str, destination: Path, example: Path) -> None:
    """Refuse to replace a folder that is not ours, or a file by a folder and the reverse."""
    folder = os.path.isdir(destination)
    if format not in FOLDERS:
        if folder:
            raise UsageError(
                f"Expected a file to write, but {destination} is a folder; use {example}."
            )
        return
    if os.path.exists(destination) and not folder:
        raise UsageError(
            f"Expected a folder to write, but {destination} is a file; choose another name."
        )
    try:
        ours = not folder or identify(destination).kind == "savedmodel"
    except ExportError:
        ours = False
    if not ours:
        raise UsageError(
            f"Expected a new folder, or one that automl-tl wrote, but {destination} is another; "
            f"use {example}."
        )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def _move(aside: Path, destination: Path, replaced: Path) -> None:
    """Move a file or folder into place; what was there comes back when that fails."""
    if not aside.is_dir():
        aside.replace(destination)
        return
    there = os.path.lexists(destination)
    if there:
        destination.rename(replaced)
    try:
        aside.rename(destination)
    except OSError:
        if there:
            replaced.rename(destination)
        raise


def write(
    backend: Backend,
    model_file: Path,
    format: str,
    aside: Path,
    pixels: NDArray[np.uint8],
    facts: ModelFacts,
) -> NDArray[np.float32]:
    """Export a trained model to a file, the only one in its folder; returns the model's logits.

    Raises:
        ExportError: Whatever goes wrong.
    """
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
    return open_written(aside, facts) or (facts.backend, backend.load(aside))


def open_written(aside: Path, facts: ModelFacts) -> tuple[str, Classifier] | None:
    """Open an exported file as a stranger would; returns the runtime's name and the model.

    None for a file that takes a backend.

    Raises:
        ExportError: When the file cannot be opened or carries other metadata than ``facts``.
    """
    file = identify(aside)
    if file.facts.metadata() != facts.metadata():
        raise ExportError(
            f"Expected the metadata of the trained model inside {aside.name}, but it differs."
        )
    return open_alone(file, aside.name, "cpu")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
