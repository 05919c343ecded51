"""Export a trained model, and prove that the exported file computes the same.

The file is written into a folder of its own beside the destination, opened in its own runtime and
run on real images; only a file that agrees with the trained model is moved into place. "File" also
means the folder of a SavedModel.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import calibration, card
from automl_tl.destination import check_destination, move_into_place, size_on_disk
from automl_tl.errors import ExportError
from automl_tl.identify import identify
from automl_tl.parity import compare, hold_to_recorded
from automl_tl.predict import open_alone
from automl_tl.stages import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.parity import Recorded
    from automl_tl.predict import Classifier
    from automl_tl.protocols import Backend
    from automl_tl.stages import Stage

IMAGES = 256
"""Most images that are compared, see ``spread``."""

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
        calibration: What a temperature did to it, see ``calibrated``; None without one.
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
    calibration: Mapping[str, Any] | None = None


def spread(count: int) -> NDArray[np.int64]:
    """Return the positions of at most ``IMAGES`` of ``count`` images, spread over all of them.

    The images of a class lie next to each other; the first ones would all be of one class.
    """
    chosen = min(count, IMAGES)
    return np.arange(chosen) * count // max(1, chosen)


def export_model(
    model_file: Path,
    format: str,
    destination: Path,
    backend: Backend,
    suffixes: Mapping[str, str],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    facts: ModelFacts,
    stage: Stage = silent,
    recorded: Recorded | None = None,
) -> ExportReport:
    """Export a trained model with its model card, and prove it equal first.

    With ``facts.extra["calibration"]``, the file's logits are those of the trained model, divided
    by that temperature.

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
        stage: Told how far it is.
        recorded: What the trial recorded of these images, where it is known.

    Raises:
        UsageError: When the format is unknown or the destination cannot be a file of it.
        ExportError: When the file cannot be written or does not agree, or the model does not agree
            with what was recorded; nothing is left behind.
    """
    model_file = model_file.resolve()
    return prove(
        lambda aside, images: write(
            backend, model_file, format, aside, images, facts, stage, recorded
        ),
        lambda aside: _open(backend, aside, facts),
        format,
        destination,
        suffixes,
        pixels,
        labels,
        facts,
        stage,
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
    stage: Stage = silent,
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
        stage: See there.

    Raises:
        UsageError: When the destination cannot be a file of the format.
        ExportError: When the file cannot be written or does not agree; nothing is left behind.
    """
    card_path = check_destination(format, destination, suffixes)
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
            what = f"checking the file with {runtime}"
            runs = [
                _logits(exported, pixels[:n], batch, what, stage) for n, batch in _runs(len(pixels))
            ]
            report = ExportReport(
                path=destination,
                card=card_path,
                format=format,
                bytes=size_on_disk(aside),
                runtime=runtime,
                accuracy=float((runs[0].argmax(axis=1) == labels).mean()),
                calibration=facts.extra.get("calibration"),
                **compare(reference, runs, format),
            )
            text = card.render(facts, report)
            card_aside = Path(folder) / "card.md"
            card_aside.write_text(text, encoding="utf-8", newline="\n")
            move_into_place(aside, destination, Path(folder) / "replaced")
            card_aside.replace(card_path)
    except OSError as error:
        raise ExportError(
            f"Expected to write {destination}, but: {error.strerror or error}; choose another "
            "place."
        ) from error
    return report


def _logits(
    model: Classifier,
    pixels: NDArray[np.uint8],
    batch: int,
    what: str,
    stage: Stage,
) -> NDArray[np.float32]:
    """Run a model, batch by batch, and tell how far it is."""
    parts = []
    for start in range(0, len(pixels), batch):
        stage(what, start, len(pixels))
        parts.append(model.logits(pixels[start : start + batch], batch))
    return np.concatenate(parts)


def _runs(count: int) -> tuple[tuple[int, int], ...]:
    """How many images to run at which batch size: several sizes prove that it is dynamic."""
    return (count, _BATCH), (min(count, 3), 1), (min(count, 3), 3)


def write(
    backend: Backend,
    model_file: Path,
    format: str,
    aside: Path,
    pixels: NDArray[np.uint8],
    facts: ModelFacts,
    stage: Stage = silent,
    recorded: Recorded | None = None,
) -> NDArray[np.float32]:
    """Export a trained model to a file, the only one in its folder; returns the file's logits.

    They are what the trained model gives, divided by the temperature that the facts tell of. The
    model must give what was ``recorded``.

    Raises:
        ExportError: Whatever goes wrong.
    """
    try:
        stage(f"starting {facts.backend}", 0, 0)
        trained = backend.load(model_file)
        reference = _logits(trained, pixels, _BATCH, "running the trained model", stage)
        if recorded is not None:
            hold_to_recorded(reference, recorded)
        if calibrated := facts.extra.get("calibration"):
            temperature = calibrated["temperature"]
            trained.calibrate(temperature)
            reference = calibration.divided(reference, temperature)
        stage(f"writing {format}", 0, 0)
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
