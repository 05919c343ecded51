"""Which trials together beat the best one: greedy selection on stored validation logits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import metrics
from automl_tl.errors import TrialError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

DRAWS = 10
"""Most draws, so that no weight is finer than a tenth."""

ROUNDED = 9
"""Digits of a metric that count; the rest is how the sums were rounded."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members of a weighted mean of probabilities.

    Attributes:
        draws: How often each member was drawn: its weight, before division by their sum.
        value: The metric on the images that the members were chosen on.
    """

    draws: Mapping[int, int]
    value: float

    @property
    def weights(self) -> dict[int, float]:
        """Return the members' weights, which sum to 1."""
        total = sum(self.draws.values())
        return {member: count / total for member, count in self.draws.items()}


def select(
    logits: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    metric: str,
    draws: int = DRAWS,
) -> Ensemble:
    """Choose members one draw at a time, with replacement, each the best addition to the mean.

    Of equal additions the one with the smaller log loss is drawn, then the earlier. Of all stages
    the one with the best metric is kept; of equal ones that with the fewest members, then with the
    fewest draws, so an ensemble of two or more is better than each of its members. Caruana et
    al., "Ensemble selection from libraries of models", ICML 2004.

    Args:
        logits: ``(n, classes)`` of each candidate on the same images. Their probabilities are
            held as float32: ``4 * n * classes`` bytes a candidate.
        labels: ``(n,)``.
        metric: What to improve.
        draws: Most draws.

    Returns:
        Members are positions in ``logits``.

    Raises:
        TrialError: When there are no candidates, or logits that no metric can be computed from.
    """
    if not logits:
        raise TrialError("Expected the logits of at least one trial to choose among, but got none.")
    shares = [metrics.probabilities(one).astype(np.float32) for one in logits]
    total = np.zeros(shares[0].shape)
    drawn: list[int] = []
    values: list[float] = []
    stages: list[tuple[float, int, int]] = []
    for count in range(1, draws + 1):
        rated = [
            (*_rate((total + one) / count, labels, metric), -index)
            for index, one in enumerate(shares)
        ]
        best = max(rated)
        drawn.append(-int(best[2]))
        total += shares[drawn[-1]]
        values.append(metrics.goodness(best[0], metric))  # twice negated is not at all
        stages.append((round(best[0], ROUNDED), -len(set(drawn)), -count))
    count = -max(stages)[2]
    return Ensemble(dict(Counter(sorted(drawn[:count]))), values[count - 1])


def mean_logits(
    logits: Sequence[NDArray[np.float32]], weights: Sequence[float]
) -> NDArray[np.float32]:
    """Return logits whose softmax is the weighted mean of the members' softmax.

    Args:
        logits: ``(n, classes)`` of each member.
        weights: Of each member; they sum to 1.
    """
    parts = [
        _log_probabilities(one) + np.log(weight)
        for one, weight in zip(logits, weights, strict=True)
    ]
    return np.asarray(np.logaddexp.reduce(parts), np.float32)


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _rate(
    shares: NDArray[np.float64], labels: NDArray[np.int64], metric: str
) -> tuple[float, float]:
    """Return the goodness of mean probabilities and their negative log loss."""
    true = shares[np.arange(len(labels)), labels]
    loss = float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())
    if metric == "log_loss":
        return -metrics.log_loss(true), -loss
    if metric == "accuracy":  # needs no scikit-learn, whose import takes longer than all the rest
        return float((shares.argmax(axis=1) == labels).mean()), -loss
    floats = np.log(np.maximum(shares, np.finfo(np.float32).tiny)).astype(np.float32)
    return metrics.goodness(metrics.value(floats, labels, metric), metric), -loss
