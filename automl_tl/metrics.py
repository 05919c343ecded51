"""Every metric, from logits, once for all frameworks, and what the figures are worth.

The numbers are scikit-learn's, computed without it: importing that took a worker 80 MB and 1.4 s,
and its checks of arguments a seventh of a short trial.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import TrialError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

DIRECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "maximize",
        "balanced_accuracy": "maximize",
        "macro_f1": "maximize",
        "log_loss": "minimize",
    }
)
"""Metric names, and what Optuna should do with each."""


def from_logits(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute every metric.

    Balanced accuracy and macro-F1 average over the classes that occur in ``labels``.

    Args:
        logits: ``(n, classes)``, finite.
        labels: ``(n,)``, indices of the classes.

    Returns:
        A value for each name in ``DIRECTIONS``, and ``n``, the number of images.

    Raises:
        TrialError: When there are no images or a logit is NaN or infinite.
    """
    _check(logits, labels)
    values = {name: float(_METRICS[name](logits, labels)) for name in DIRECTIONS}
    return {**values, "n": len(labels)}


def value(logits: NDArray[np.float32], labels: NDArray[np.int64], metric: str) -> float:
    """Compute one metric, the same number as in ``from_logits``.

    Args:
        logits: ``(n, classes)``, finite.
        labels: ``(n,)``, indices of the classes.
        metric: A name in ``DIRECTIONS``.

    Raises:
        TrialError: When there are no images or a logit is NaN or infinite.
        UsageError: When there is no such metric.
    """
    if metric not in DIRECTIONS:
        raise UsageError(
            f"Expected a metric among {', '.join(DIRECTIONS)}, but got {metric!r}; choose one."
        )
    _check(logits, labels)
    return float(_METRICS[metric](logits, labels))


def goodness(value: float, metric: str) -> float:
    """Return a figure that is larger for the better: the value, negated where less is better."""
    return value if DIRECTIONS[metric] == "maximize" else -value


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of ``(n, classes)`` logits; rows sum to 1 whatever their size."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def log_loss(true: NDArray[np.floating[Any]]) -> float:
    """Return the log loss of the true classes' probabilities, ``(n,)``, clipped off 0 and 1."""
    tiny = np.finfo(np.float64).eps
    return float(-np.log(np.clip(true, tiny, 1 - tiny)).mean())


def by_class(
    logits: NDArray[np.float32], labels: NDArray[np.int64], confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Compute ``precision``, ``recall``, ``f1`` and ``support`` of each class, in their order.

    Args:
        logits: ``(n, classes)``, finite.
        labels: ``(n,)``, indices of the classes.
        confidence: Of ``recall_interval``.

    Returns:
        One mapping a class. Recall, F1 and the interval are None for a class that does not occur
        in ``labels``, precision for one that was never predicted.

    Raises:
        TrialError: When there are no images or a logit is NaN or infinite.
    """
    matrix = confusion(logits, labels)
    rows: list[dict[str, Any]] = []
    for index in range(len(matrix)):
        hits = int(matrix[index, index])
        support, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
        rows.append(
            {
                "precision": hits / predicted if predicted else None,
                "recall": hits / support if support else None,
                "f1": 2 * hits / (support + predicted) if support else None,
                "support": support,
                "recall_interval": list(interval(hits, support, confidence)) if support else None,
            }
        )
    return rows


def confusion(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count images by true class (rows) and predicted class (columns); ``(classes, classes)``.

    Raises:
        TrialError: When there are no images or a logit is NaN or infinite.
    """
    _check(logits, labels)
    return _counts(logits, labels)


def interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion, ``(0, 1)`` when ``n`` is 0.

    Unlike the textbook interval it stays inside [0, 1] and has a width when every image is right.
    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927).

    Args:
        correct: Successes, at most ``n``.
        n: Independent tries.
        confidence: In (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def optimism(
    validation: float,
    n_validation: int,
    trials: int,
    test: float | None = None,
    n_test: int = 0,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """Say how much the validation figure of the best trial flatters it.

    The best of N trials is partly the luckiest. Of an accuracy it can be said how much: were all
    trials equally good and their errors independent, the best would lie the expected maximum of N
    Gaussian draws, in standard errors of one accuracy, above the truth. All trials see the same
    validation images, which makes their errors alike and the real optimism smaller: ``expected`` is
    an upper estimate. Cawley and
    Talbot, "On over-fitting in model selection and subsequent selection bias in performance
    evaluation", Journal of Machine Learning Research 11 (2010).

    Args:
        validation: The metric on the validation split, of the best trial.
        n_validation: Validation images.
        trials: Trials that it was chosen from.
        test: The metric on the test split, None when it was not computed.
        n_test: Test images.
        metric: What the trial was chosen by.

    Returns:
        ``trials``, ``n_validation``, ``standard_error`` (of the validation accuracy), ``expected``
        (optimism), ``gap`` (how much better validation is than test, or None), ``warn`` (whether
        ``expected`` is at least one point, or the gap more than two of its standard errors) and
        ``sentence``. For any other metric ``standard_error`` and ``expected`` are None, and
        ``warn`` is whether there was a choice.
    """
    error = _standard_error(validation, n_validation) if metric == "accuracy" else None
    expected = None if error is None else error * _expected_maximum(trials)
    name = metric.replace("_", " ")
    sentence = (
        f"Choosing the best of {trials} trials on {n_validation} validation images can flatter its "
        f"validation {name} ({_figure(validation, metric)})"
        + ("" if expected is None else f" by up to about {100 * expected:.1f} points")
        if trials > 1
        else f"The validation {name} ({_figure(validation, metric)}) is that of the only trial, on "
        f"{n_validation} images"
    )
    gap = None
    warn = trials > 1 if expected is None else expected >= 0.01
    if test is None:
        sentence += "; only images that the search never saw would tell."
    else:
        gap = goodness(validation, metric) - goodness(test, metric)
        if error is not None:
            warn = warn or gap > 2 * sqrt(error**2 + _standard_error(test, n_test) ** 2)
        sentence += (
            f"; on the {n_test} test images that the search never saw it is "
            f"{_figure(test, metric)}, {_gap(gap, metric)}."
        )
    return {
        "trials": trials,
        "n_validation": n_validation,
        "standard_error": error,
        "expected": expected,
        "gap": gap,
        "warn": warn,
        "sentence": sentence,
    }


def _figure(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.4f}"


def _gap(gap: float, metric: str) -> str:
    """Say how far the test figure is from the validation figure."""
    if metric == "accuracy":
        size, words = f"{abs(100 * gap):.1f}", (" points lower", " points higher")
    else:
        size, words = f"{abs(gap):.4f}", (" worse", " better")
    return f"{size}{words[gap < 0]}" if float(size) else "the same"


def _standard_error(share: float, n: int) -> float:
    """Of a proportion, with Agresti and Coull's two added successes and failures."""
    adjusted = (share * n + 2) / (n + 4)
    return sqrt(adjusted * (1 - adjusted) / (n + 4))


def _expected_maximum(n: int) -> float:
    """Mean of the largest of ``n`` standard Gaussian draws, by quadrature."""
    if n <= 1:
        return 0.0
    x = np.linspace(-9.0, 9.0, 2001)
    normal = NormalDist()
    below = np.array([normal.cdf(v) for v in x]) ** n
    # E[M] = integral of 1 - P(M <= x) above zero, minus integral of P(M <= x) below it.
    step = float(x[1] - x[0])
    return float(((x >= 0) - below).sum() * step - step / 2)


def _check(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise TrialError(
            f"Expected logits (n, classes) for n > 0 labels, but got logits of shape "
            f"{logits.shape} for {len(labels)} labels."
        )
    if not np.isfinite(logits).all():
        raise TrialError(
            "Expected finite logits, but some are NaN or infinite; try a lower learning rate."
        )


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _counts(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    classes = logits.shape[1]
    pairs = np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2)
    return pairs.reshape(classes, classes)


def _balanced_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    matrix = _counts(logits, labels)
    support = matrix.sum(axis=1)
    present = support > 0
    return float((matrix.diagonal()[present] / support[present]).mean())


def _macro_f1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    matrix = _counts(logits, labels)
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    present = support > 0
    return float((2 * matrix.diagonal() / np.maximum(support + predicted, 1))[present].mean())


def _log_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return log_loss(probabilities(logits)[np.arange(len(labels)), labels])


_METRICS: Mapping[str, Callable[[NDArray[np.float32], NDArray[np.int64]], float]] = (
    MappingProxyType(
        {
            "accuracy": _accuracy,
            "balanced_accuracy": _balanced_accuracy,
            "macro_f1": _macro_f1,
            "log_loss": _log_loss,
        }
    )
)
