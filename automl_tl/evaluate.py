"""Measure a model file on labelled images."""

from __future__ import annotations

import difflib
import time
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import calibration, metrics
from automl_tl.data.sources import open_data
from automl_tl.errors import DataError
from automl_tl.modelfile import source_id
from automl_tl.predict import open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.data.index import DataIndex, ImageItem
    from automl_tl.modelfile import ModelFacts
    from automl_tl.predict import Predictor, Scored
    from automl_tl.specs import DatasetSpec
    from automl_tl.types import Split


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    cache_directory: Path,
    datasets: Mapping[str, DatasetSpec],
    split: Split | None = None,
    device: str = "auto",
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a model file on labelled images.

    The data's classes are matched to the model's by name; the data need not hold all of them.

    Args:
        model: A model file.
        data: Whatever ``search`` takes as data.
        cache_directory: Where archives are unpacked.
        datasets: Named data sources.
        split: Use only the images that the data itself puts there; None uses all images.
        device: As for ``open_model``.
        batch_size: Images run at once.
        progress: Called with the number of images done and of all images.

    Returns:
        JSON-ready: ``model``, ``data``, ``split``, ``study``, ``trial``, ``backbone``, ``n``,
        ``accuracy``, ``interval`` (95 %, of the accuracy), ``balanced_accuracy``, ``macro_f1``,
        ``log_loss``, ``calibration_error`` (the expected one, in ten bins), ``classes`` (``name``,
        ``precision``, ``recall``, ``f1``, ``support``, ``recall_interval``), ``confusion`` (rows
        are true, columns predicted classes), ``broken``
        (``name`` and ``reason`` of images left out), ``notes`` and ``seconds``.

    Raises:
        DataError: When the data cannot be used, or has classes that the model does not know.
        ExportError: When the model cannot be opened.
    """
    started = time.monotonic()
    with open_model(model, device) as predictor:
        index = open_data(str(data), cache_directory, datasets)
        facts = predictor.facts
        labels = match(index, facts.classes)
        items = choose(index, split)
        scored = score(predictor, items, batch_size, progress)
    return figures(str(model), facts, index, split, items, scored, labels) | {
        "seconds": time.monotonic() - started
    }


def score(
    predictor: Predictor,
    items: Sequence[ImageItem],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
    """Return a model's logits of every item, or why there are none."""
    scored = []
    for found in predictor.score([item.path for item in items], batch_size):
        scored.append(found)
        if progress:
            progress(len(scored), len(items))
    return scored


def figures(
    model: str,
    facts: ModelFacts,
    index: DataIndex,
    split: Split | None,
    items: Sequence[ImageItem],
    scored: Sequence[Scored],
    labels: Sequence[int],
) -> dict[str, Any]:
    """Return what ``evaluate`` does, but for ``seconds``.

    Args:
        model: How the caller named the model.
        facts: Of the model.
        index: The data.
        split: As for ``evaluate``.
        items: The images.
        scored: What the model makes of each.
        labels: The model's number of each of the data's classes, see ``match``.

    Raises:
        DataError: When no image can be used.
    """
    broken = [
        {"name": item.name, "reason": one.error}
        for item, one in zip(items, scored, strict=True)
        if one.logits is None
    ]
    logits = [one.logits for one in scored if one.logits is not None]
    if not logits:
        raise DataError(
            f"Expected images in {index.source}, but none of the {len(items)} files can be used "
            f"({broken[0]['name']}: {broken[0]['reason']}); `automl-tl data check` lists them."
        )
    scores, truth = np.stack(logits), true_classes(items, scored, labels)
    correct = int((scores.argmax(axis=1) == truth).sum())
    rows = metrics.by_class(scores, truth)
    return {
        "model": model,
        "data": index.source,
        "split": split,
        "study": facts.study,
        "trial": facts.trial,
        "backbone": facts.backbone,
        **metrics.from_logits(scores, truth),
        "calibration_error": calibration.reliability(scores, truth)["ece"],
        "interval": list(metrics.interval(correct, len(truth))),
        "classes": [{"name": c, **row} for c, row in zip(facts.classes, rows, strict=True)],
        "confusion": metrics.confusion(scores, truth).tolist(),
        "broken": broken,
        "notes": [*index.notes, *_notes(index, split, facts.extra)],
    }


def true_classes(
    items: Sequence[ImageItem], scored: Sequence[Scored], labels: Sequence[int]
) -> NDArray[np.int64]:
    """Return the model's number of the true class of each image that can be used."""
    pairs = zip(items, scored, strict=True)
    return np.array([labels[item.label] for item, one in pairs if one.logits is not None], np.int64)


def match(index: DataIndex, known: Sequence[str]) -> list[int]:
    """Return the model's number of each of the data's classes.

    Raises:
        DataError: When the model does not know one of them.
    """
    source = index.source
    numbers = same_names(index.classes, known)
    unknown = [name for name, number in zip(index.classes, numbers, strict=True) if number is None]
    if unknown:
        folded = {name.casefold(): name for name in known}
        close = difflib.get_close_matches(unknown[0].casefold(), folded, 1)
        hint = f"did you mean {folded[close[0]]!r}?" if close else "rename it or leave it out."
        raise DataError(
            f"Expected classes of the model ({_some(known)}), but {source} also has "
            f"{_some(unknown)}; {hint}"
        )
    return [number for number in numbers if number is not None]


def same_names(found: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return the number in ``known`` of each name that was found, or None."""
    exact = {name: i for i, name in enumerate(known)}
    # A file system may have decomposed the letters that a model's metadata composes.
    composed = {unicodedata.normalize("NFC", name): i for i, name in enumerate(known)}
    return [exact.get(name, composed.get(unicodedata.normalize("NFC", name))) for name in found]


def choose(index: DataIndex, split: Split | None) -> list[ImageItem]:
    """Return the images of a split, or all of them.

    Raises:
        DataError: When there are none.
    """
    items = [item for item in index.items if split is None or item.split == split]
    if not items:
        given = sorted({item.split for item in index.items if item.split})
        raise DataError(
            f"Expected images for the split {split!r} in {index.source}, but "
            f"{'it has only ' + ', '.join(given) if given else 'it is not split'}; leave out "
            "--split to use all images."
        )
    return items


def _notes(index: DataIndex, split: Split | None, extra: Mapping[str, Any]) -> list[str]:
    """Warn when the model has seen these images; ``extra["data"]["source_id"]`` says where from."""
    data = extra.get("data")
    seen = isinstance(data, dict) and data.get("source_id") == source_id(index.source)
    if not seen or split == "test":
        return []
    return [
        "The model was trained on images of this very data set, so these figures flatter it; "
        "`automl-tl show` gives the figures on images that the search never saw."
    ]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
