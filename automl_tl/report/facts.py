"""Everything that a report says, as plain data: JSON-ready, no HTML, no figure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from automl_tl import calibration, metrics
from automl_tl.needed import missing_files
from automl_tl.plugin_files import flags
from automl_tl.plugins import get_plugins
from automl_tl.report import failures, trials
from automl_tl.report.again import again
from automl_tl.report.findings import findings
from automl_tl.report.latency import measure
from automl_tl.report.together import together
from automl_tl.testsplit import read_logits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import optuna
    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.report.images import Images
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData
    from automl_tl.types import Split

    Facts = Mapping[str, Any]

LISTED_TRIALS = 50


def gather(
    directory: StudyDirectory,
    data: StudyData,
    study: optuna.Study,
    summary: Facts,
    store: Store,
    images: Images,
) -> dict[str, Any]:
    """Return the facts of a study's report.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
        summary: What ``summary.summarise`` says of it.
        store: The cache.
        images: The study's pictures.

    Returns:
        ``study``, ``answer``, ``together``, ``search``, ``curves``, ``failures``, ``calibration``,
        ``doubtful``, ``data``, ``time`` and ``again``; ``answer`` is None while no trial is
        complete, and so are the figures that rest on one.
    """
    rows = trials.rows(study)
    metric = summary["metric"]
    complete = [row for row in rows if row["value"] is not None and row["twin_of"] is None]
    ranked = sorted(complete, key=lambda r: (-metrics.goodness(r["value"], metric), r["number"]))
    best = summary["best"]
    voters = failures.votes(directory, data, [row["number"] for row in ranked])
    logits = _logits(directory, data, best["trial"] if best else None)
    places = {}
    for split, values in logits.items():
        asked = voters if split == "validation" else None
        places[split] = failures.split_facts(values, data.rows(split), data, asked)
    return {
        "study": {
            "name": summary["study"],
            "metric": metric,
            "direction": summary["direction"],
            "classes": len(data.classes),
            "state": summary["state"],
            "reference": _reference(directory.path) + flags(),
            "interrupted": summary["interrupted"],
        },
        "answer": _answer(directory, data, summary, rows) if best else None,
        "together": together(directory, data, study, summary["ensemble"]),
        "search": {
            "trials": rows,
            "listed": [*ranked, *_unranked(rows)][:LISTED_TRIALS],
            "backbones": trials.groups(rows, "backbone", metric),
            "frameworks": trials.groups(rows, "framework", metric),
            "frontier": [row["number"] for row in trials.frontier(rows, metric)],
        },
        "curves": trials.curves(directory, ranked),
        "failures": places,
        "calibration": _calibration(logits, data),
        "doubtful": failures.doubtful_labels(data, voters),
        "data": findings(data, images),
        "time": trials.time_spent(directory, rows) | {"decoded": summary["reuse"]["decoded"]},
        "again": again(directory, data, store, best["trial"] if best else None),
    }


def _reference(path: Path) -> str:
    """Return what names the study on a command line, also from a folder that is not today's."""
    return shlex.quote(path.name if path.parent.name == "studies" else str(path))


def _logits(
    directory: StudyDirectory, data: StudyData, best: int | None
) -> dict[Split, NDArray[np.float32]]:
    """Return the best trial's logits on validation, and on test where they were computed."""
    if best is None:
        return {}
    result = directory.result()
    splits: list[Split] = ["validation"]
    if result and result["trial"] == best:
        splits.append("test")
    found = {split: read_logits(directory, data, best, split) for split in splits}
    return {split: logits for split, logits in found.items() if logits is not None}


def _unranked(rows: Sequence[Facts]) -> list[Facts]:
    return [row for row in reversed(rows) if row["value"] is None or row["twin_of"] is not None]


def _answer(
    directory: StudyDirectory, data: StudyData, summary: Facts, rows: Sequence[Facts]
) -> dict[str, Any]:
    best = summary["best"]
    row = next(row for row in rows if row["number"] == best["trial"])
    model = directory.model(best["trial"])
    spec = row["spec"]
    counts = summary["data"]["counts"]
    split = "test" if best["test"] else "validation"
    sizes = [counts[name][split] for name in data.classes]
    size = spec.get("image_size")
    if size is None:
        known = get_plugins().backbones.get(spec["backbone"])
        size = known.input_size if known else None
    why = missing_files(directory.config) or "Its plugin is not installed."
    latency: Facts = {"problem": f"The latency is not known. {why}"}
    if size is not None and spec["backbone"] in get_plugins().backbones:
        latency = measure(directory, best["trial"], row["framework"], size)
    validation, test = best["validation"], best["test"]
    return {
        "trial": best["trial"],
        "recipe": row["recipe"],
        "label_smoothing": spec.get("label_smoothing", 0.0),
        "backbone": row["backbone"],
        "depth": trials.depth(row),
        "value": best["value"],
        "validation": validation,
        "validation_interval": list(_interval(validation)),
        "test": test,
        "evaluations": best["test_evaluations"],
        "optimism": best["optimism"],
        "majority": max(sizes) / sum(sizes) if sum(sizes) else None,
        "image_size": size,
        "total_parameters": row["total_parameters"],
        "trainable_parameters": row["trainable_parameters"],
        "bytes": model.stat().st_size if model.is_file() else None,
        "latency": dict(latency),
        "notes": row["notes"],
        "stopped": row["stopped"],
    }


def _interval(figures: Facts) -> tuple[float, float]:
    n = int(figures["n"])
    return metrics.interval(round(figures["accuracy"] * n), n)


def _calibration(
    logits: Mapping[Split, NDArray[np.float32]], data: StudyData
) -> dict[str, Any] | None:
    """Return what one temperature, fitted on validation, does to the calibration of each split."""
    if "validation" not in logits:
        return None
    labels = {split: data.labels[data.rows(split)] for split in logits}
    return {**calibration.compare(logits, labels), "bins": calibration.BINS}
