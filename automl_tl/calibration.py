"""How far a model's probabilities can be believed, and what one temperature would mend.

Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from automl_tl.types import Split

BINS = 10
_RANGE = (-3.0, 3.0)


def fit(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float | None:
    """Return the temperature that minimises the mean log loss of ``logits / temperature``.

    None when all images are right or all are wrong: the minimum then lies at zero or infinity.
    """
    from scipy.optimize import minimize_scalar

    right = logits.argmax(axis=1) == labels
    if right.all() or not right.any():
        return None

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        normal = np.log(np.exp(shifted).sum(axis=1))
        return float((normal - shifted[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def compare(
    logits: Mapping[Split, NDArray[np.float32]], labels: Mapping[Split, NDArray[np.int64]]
) -> dict[str, Any]:
    """Fit a temperature on the validation split and say what it does to each split.

    Args:
        logits: ``(n, classes)`` by split; validation must be there.
        labels: ``(n,)`` of the same splits.

    Returns:
        ``temperature``, None where none can be fitted; ``splits``: for each, ``before`` and
        ``after`` as ``reliability`` has them, the latter None without a temperature.
    """
    temperature = fit(logits["validation"], labels["validation"])
    splits = {
        split: {
            "before": reliability(values, labels[split]),
            "after": reliability(values, labels[split], temperature) if temperature else None,
        }
        for split, values in logits.items()
    }
    return {"temperature": temperature, "splits": splits}


def reliability(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> dict[str, Any]:
    """Compare confidence with accuracy in ten bins of equal width.

    Args:
        logits: ``(n, classes)``.
        labels: ``(n,)``.
        temperature: Divides the logits.

    Returns:
        ``ece``, the expected calibration error in [0, 1]; ``confidence`` and ``accuracy``, means
        over all images, with the ``interval`` of the latter (95 %); ``log_loss``; ``n``; ``bins``
        that hold images: ``confidence``, ``accuracy``,
        ``interval`` (95 %) and ``n``.
    """
    scaled = divided(logits, temperature)
    probabilities = metrics.probabilities(scaled)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins: list[dict[str, Any]] = []
    for index in range(BINS):
        inside = place == index
        if count := int(inside.sum()):
            hits = int(right[inside].sum())
            bins.append(
                {
                    "confidence": float(confidence[inside].mean()),
                    "accuracy": hits / count,
                    "interval": list(metrics.interval(hits, count)),
                    "n": count,
                }
            )
    total = len(labels)
    error = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / total
    return {
        "ece": float(error),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "interval": list(metrics.interval(int(right.sum()), total)),
        "log_loss": metrics.value(scaled, labels, "log_loss"),
        "n": total,
        "bins": bins,
    }


def divided(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return logits divided by a temperature, as float32."""
    return (logits / temperature).astype(np.float32)
