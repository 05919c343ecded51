"""Compare two model files on the same labelled images."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.data.sources import open_data
from automl_tl.errors import DataError
from automl_tl.evaluate import choose, figures, match, same_names, score, true_classes
from automl_tl.predict import open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.predict import Predictor, Scored
    from automl_tl.specs import DatasetSpec
    from automl_tl.types import Split


def compare_models(
    first: str | Path,
    second: str | Path,
    data: str | Path,
    *,
    cache_directory: Path,
    datasets: Mapping[str, DatasetSpec],
    split: Split | None = None,
    device: str = "auto",
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure two model files on labelled images, and say whether chance explains the difference.

    An image that one of them cannot use counts for neither.

    Args:
        first: A model file, called A.
        second: A model file, called B, of the same classes; their order may differ.
        data: As for ``evaluate``.
        cache_directory: As for ``evaluate``.
        datasets: As for ``evaluate``.
        split: As for ``evaluate``.
        device: As for ``open_model``.
        batch_size: Images run at once.
        progress: Called with the number of images done and of all, each counted once a model.

    Returns:
        JSON-ready: ``models``, what ``evaluate`` returns of A and of B, in A's order of classes;
        ``mcnemar``, see ``mcnemar``; ``sentence``, which says it in words; and ``seconds``.

    Raises:
        DataError: As for ``evaluate``, and when the models know different classes.
        ExportError: When a model cannot be opened.
    """
    started = time.monotonic()
    with ExitStack() as opened:
        models = [opened.enter_context(open_model(path, device)) for path in (first, second)]
        classes = models[0].facts.classes
        order = _order(models[0], models[1])
        index = open_data(str(data), cache_directory, datasets)
        labels = match(index, classes)
        items = choose(index, split)

        def tell(earlier: int) -> Callable[[int, int], None] | None:
            return progress and (lambda done, n: progress(earlier + done, 2 * n))

        a = score(models[0], items, batch_size, tell(0))
        b = _reorder(score(models[1], items, batch_size, tell(len(items))), order)
    a, b = _common(a, b)
    facts = [models[0].facts, replace(models[1].facts, classes=classes)]
    measured = [
        figures(str(path), told, index, split, items, scored, labels)
        for path, told, scored in zip((first, second), facts, (a, b), strict=True)
    ]
    truth = true_classes(items, a, labels)
    result = mcnemar(_right(a, truth), _right(b, truth))
    return {
        "models": measured,
        "mcnemar": result,
        "sentence": describe(result),
        "seconds": time.monotonic() - started,
    }


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
    """Run McNemar's exact test on two classifiers.

    Only the images on which they differ tell them apart; were both equally good, each of these
    would be a fair coin. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947).

    Args:
        a: Whether A is right, one an image.
        b: Whether B is right, on the same images.

    Returns:
        Numbers of images: ``both`` are right, ``only_a``, ``only_b``, ``neither``; and ``p``,
        two-sided, 1 when they never differ.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    differ = only_a + only_b
    return {
        "both": int((a & b).sum()),
        "only_a": only_a,
        "only_b": only_b,
        "neither": int((~a & ~b).sum()),
        "p": float(binomtest(only_a, differ).pvalue) if differ else 1.0,
    }


def describe(result: Mapping[str, Any]) -> str:
    """Say in a sentence what ``mcnemar`` found."""
    if not result["only_a"] + result["only_b"]:
        return "A and B are right on the same images, so nothing tells them apart."
    p = "p < 0.001" if result["p"] < 0.001 else f"p = {result['p']:.2g}"
    return (
        f"B is right on {_images(result['only_b'])} where A is wrong, and wrong on "
        f"{result['only_a']} where A is right; were both equally good, so large a difference would "
        f"arise by chance with {p}."
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _order(a: Predictor, b: Predictor) -> list[int]:
    """Return B's number of each of A's classes."""
    numbers = same_names(a.facts.classes, b.facts.classes)
    missing = [c for c, i in zip(a.facts.classes, numbers, strict=True) if i is None]
    found = [number for number in numbers if number is not None]
    more = [c for i, c in enumerate(b.facts.classes) if i not in found]
    if missing or more:
        name, (has, lacks) = (missing or more)[0], (a, b) if missing else (b, a)
        raise DataError(
            f"Expected two models of the same classes, but {has.path} knows {name!r} and "
            f"{lacks.path} does not; evaluate them one by one."
        )
    return found


def _reorder(scored: Sequence[Scored], order: list[int]) -> list[Scored]:
    return [one if one.logits is None else replace(one, logits=one.logits[order]) for one in scored]


def _common(a: Sequence[Scored], b: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """Leave out of both what one of them cannot use."""
    pairs = [
        (x, y) if x.logits is not None and y.logits is not None else (x if x.error else y,) * 2
        for x, y in zip(a, b, strict=True)
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _right(scored: Sequence[Scored], truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    chosen = [int(one.logits.argmax()) for one in scored if one.logits is not None]
    return np.asarray(np.array(chosen, np.int64) == truth)
