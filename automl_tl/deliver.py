"""From a trial of a study to an exported file."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import export, kept, metrics, storage
from automl_tl.calibrated import calibrated
from automl_tl.destination import check_destination
from automl_tl.errors import ExportError, StudyError, UsageError
from automl_tl.facts import FACTS, twin_of
from automl_tl.host import BackendHost
from automl_tl.parity import Recorded
from automl_tl.plugins import get_plugins
from automl_tl.prepare import open_arrays
from automl_tl.recipe import model_facts
from automl_tl.stages import silent
from automl_tl.study import reference
from automl_tl.testsplit import read_logits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import optuna
    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.export import ExportReport
    from automl_tl.modelfile import ModelFacts
    from automl_tl.specs import BackendSpec
    from automl_tl.stages import Stage
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData
    from automl_tl.types import Split

SCORED: tuple[Split, ...] = ("validation", "test")
"""Splits whose logits are stored."""


def export_trial(
    directory: StudyDirectory,
    data: StudyData,
    study: optuna.Study,
    store: Store,
    destination: Path,
    format: str | None,
    number: int | None,
    calibrate: bool = False,
    stage: Stage = silent,
) -> ExportReport:
    """Export a trial's model, proved equal on the validation images.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
        store: The cache, with the study's pixels.
        destination: The file to write.
        format: Export format; by default the one that the destination's suffix tells.
        number: Of the trial; the best one by default.
        calibrate: Divide the logits by the temperature that fits the validation split best.
        stage: See ``export.export_model``.

    Raises:
        StudyError: When no trial is finished yet.
        UsageError: When the format is unknown or the destination cannot be a file of it.
        ExportError: When the trial's model is not kept, no temperature can be fitted, the file
            does not agree with the model, or the model not with what the trial recorded.
    """
    finished = storage.best_trials(study)
    if not finished:
        raise StudyError(f"The study {directory.name} has no finished trial: search first.")
    trial = next((t for t in finished if number in (None, t.number)), None)
    if trial is None:
        raise ExportError(_nothing_of(directory, study, number))
    if kept.model_file(directory, trial.number) is None:
        numbers = [t.number for t in finished if kept.model_file(directory, t.number)]
        raise ExportError(
            f"The model of trial {trial.number} is not kept; those of the best trials are: "
            f"{', '.join(map(str, numbers)) or 'none'}."
        )
    facts = trial.user_attrs[FACTS]
    spec, precision = facts["spec"], facts.get("precision")
    plugins = get_plugins()
    backbone = plugins.backbone(spec["backbone"])
    backend = plugins.backend(backbone.backend)
    chosen = format or _format(backend, destination)
    check_destination(chosen, destination, backend.formats)
    arrays = open_arrays(directory, data, store)
    size, resize = spec["image_size"] or backbone.input_size, spec["resize"]
    if (size, resize) not in arrays:
        raise ExportError(
            f"Trial {trial.number} of {directory.name} is recorded with images of {size} pixels "
            f"({resize}), which its study.toml does not search: put back a copy of both."
        )
    pixels, _ = arrays[size, resize]
    positions = export.spread(len(data.rows("validation")))
    rows = data.rows("validation")[positions]
    result = directory.result()
    test = result["test"] if result and result["trial"] == trial.number else None
    trials = len(finished) if trial is finished[0] else None
    logits = {split: read_logits(directory, data, trial.number, split) for split in SCORED}
    known = logits["validation"]
    recorded = None if known is None else Recorded(trial.number, known[positions], precision)
    carried = model_facts(directory.config, data, trial.number, facts, test, trials)
    carried = with_classes(carried, data, logits)
    if calibrate:
        carried = calibrated(carried, data, logits, f"trial {trial.number}")
    with BackendHost(backend.name, device="cpu") as host:
        return export.export_model(
            kept.whole_model(directory, trial.number, host, store),
            chosen,
            destination,
            host,
            backend.formats,
            np.ascontiguousarray(np.load(pixels, mmap_mode="r")[rows]),
            data.labels[rows],
            carried,
            stage,
            recorded,
        )


def with_classes(
    facts: ModelFacts, data: StudyData, logits: Mapping[Split, NDArray[np.float32] | None]
) -> ModelFacts:
    """Add the figures of each class to a model's facts, as ``extra["by_class"]``.

    Args:
        facts: Of the model.
        data: The study's data.
        logits: Of the model on the splits, where they are stored; test counts only for facts that
            have test figures.

    Returns:
        The facts, with ``by_class`` where there are logits: ``split`` and ``rows``, see
        ``metrics.by_class``.
    """
    split: Split = "test" if facts.test and logits["test"] is not None else "validation"
    scores = logits[split]
    if scores is None:
        return facts
    rows = metrics.by_class(scores, data.labels[data.rows(split)])
    return replace(facts, extra={**facts.extra, "by_class": {"split": split, "rows": rows}})


def _nothing_of(directory: StudyDirectory, study: optuna.Study, number: int | None) -> str:
    """Say why a trial cannot be exported that is none of the best."""
    name = f"Trial {number} of {directory.name}"
    for trial in study.get_trials(deepcopy=False):
        if trial.number == number and (twin := twin_of(trial)) is not None:
            return (
                f"{name} took over the figures of trial {twin}, which has the same parameters, and "
                f"has no model of its own: export that one with --trial {twin}."
            )
    shown = f"`automl-tl show {reference(directory.path)}`"
    return f"{name} did not finish: {shown} lists those that did."


def _format(backend: BackendSpec, destination: Path) -> str:
    formats = backend.formats
    if not destination.suffix and not os.path.isdir(destination):
        return next(iter(formats))
    for name, suffix in formats.items():
        if destination.suffix.lower() == suffix:
            return name
    known = ", ".join(f"{name} ({suffix})" for name, suffix in formats.items())
    raise UsageError(
        f"Expected a file name that tells one of the formats of a {backend.name} model, {known}, "
        f"but got {destination}; choose one of these suffixes or give --format."
    )
