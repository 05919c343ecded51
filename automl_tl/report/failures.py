"""Where a model fails: classes, pairs of classes, single images, and labels that look wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import metrics
from automl_tl.testsplit import read_logits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

MISTAKES = 24
UNCERTAIN = 12
DOUBTFUL = 24
PAIRS = 8
CLASSES = 30
"""At most so many classes are drawn in the confusion matrix: those with the most mistakes."""
LISTED_CLASSES = 100
VOTERS = 50
"""So many of the best trials say what they think of an image."""
_FEW_VOTERS = 3
_AGREED = 0.8


@dataclass(frozen=True, slots=True)
class Votes:
    """What the best trials say of the validation images.

    Attributes:
        said: int64 ``(trials, n)``, the class that each trial names.
        mean: float64 ``(n, classes)``, their probabilities, averaged.
    """

    said: NDArray[np.int64]
    mean: NDArray[np.float64]


def votes(directory: StudyDirectory, data: StudyData, best_first: Sequence[int]) -> Votes | None:
    """Ask the best trials; None when fewer than three have stored logits."""
    said = []
    total: NDArray[np.float64] | None = None
    for number in best_first[:VOTERS]:
        logits = read_logits(directory, data, number, "validation")
        if logits is not None:
            said.append(logits.argmax(axis=1))
            probabilities = metrics.probabilities(logits)
            total = probabilities if total is None else total + probabilities
    if total is None or len(said) < _FEW_VOTERS:
        return None
    return Votes(np.stack(said), total / len(said))


def split_facts(
    logits: NDArray[np.float32],
    rows: NDArray[np.int64],
    data: StudyData,
    voters: Votes | None,
) -> dict[str, Any]:
    """Return where a model fails on one split.

    Args:
        logits: ``(n, classes)``.
        rows: Indices of the images in the study's data, ``(n,)``.
        data: The study's data.
        voters: From ``votes`` for the same images; None where no other trial saw them.
    """
    labels = data.labels[rows]
    matrix = metrics.confusion(logits, labels)
    probabilities = metrics.probabilities(logits)
    picker = _Picker(probabilities, rows, data, voters)
    wrong = np.flatnonzero(picker.predicted != labels)
    return {
        "n": len(rows),
        "wrong": len(wrong),
        "matrix": _matrix(matrix, data.classes),
        "classes": _classes(metrics.by_class(logits, labels), data.classes),
        "pairs": _pairs(matrix, data.classes),
        "mistakes": picker.mistakes(wrong),
        "uncertain": picker.uncertain(labels, wrong),
        "hard": picker.hard(wrong),
    }


def doubtful_labels(data: StudyData, voters: Votes | None) -> dict[str, Any]:
    """Return validation images whose label may be wrong.

    Candidates are images that at least 80 % of the best trials call by one and the same other
    name, ranked by how sure these are on average: self-confidence of held-out predictions, as in
    Northcutt et al., "Confident learning", JAIR 70 (2021), but over trials instead of folds.

    Returns:
        ``voters``, the number of trials asked (0: too few); ``count``; ``images``, the clearest.
    """
    if voters is None:
        return {"voters": 0, "count": 0, "images": []}
    rows = data.rows("validation")
    labels = data.labels[rows]
    index = np.arange(len(rows))
    counts = np.zeros(voters.mean.shape, dtype=np.int64)
    for said in voters.said:
        counts[index, said] += 1
    asked = len(voters.said)
    named = counts.argmax(axis=1)
    share = counts[index, named] / asked
    sure = voters.mean[index, named] - voters.mean[index, labels]
    found = np.flatnonzero((named != labels) & (share >= _AGREED) & (sure > 0))
    found = found[np.argsort(-sure[found], kind="stable")]
    images = [
        {
            "row": int(rows[i]),
            "name": data.names[rows[i]],
            "true": data.classes[labels[i]],
            "predicted": data.classes[named[i]],
            "p": float(voters.mean[i, named[i]]),
            "p_true": float(voters.mean[i, labels[i]]),
            "right": False,
            "why": f"{counts[i, named[i]]} of {asked} trials say so.",
        }
        for i in found[:DOUBTFUL]
    ]
    return {"voters": asked, "count": len(found), "images": images}


class _Picker:
    """Chooses images to show, and says why the model may have got them wrong."""

    def __init__(
        self,
        probabilities: NDArray[np.float64],
        rows: NDArray[np.int64],
        data: StudyData,
        voters: Votes | None,
    ) -> None:
        self._p = probabilities
        self._rows = rows
        self._data = data
        self._votes = None if voters is None else voters.said
        self.predicted = probabilities.argmax(axis=1)

    def mistakes(self, wrong: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the most confident mistakes."""
        return [self._image(i) for i in self._shown(wrong)]

    def uncertain(
        self, labels: NDArray[np.int64], wrong: NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        """Return the images with the smallest lead of the first class over the second.

        Those among ``mistakes`` are left out.
        """
        top = np.sort(self._p, axis=1)[:, -2:]
        lead = top[:, 1] - top[:, 0]
        lead[self._shown(wrong)] = np.inf
        order = np.argsort(lead, kind="stable")
        order = order[np.isfinite(lead[order])][:UNCERTAIN]
        return [self._image(i, right=bool(self.predicted[i] == labels[i])) for i in order]

    def hard(self, wrong: NDArray[np.int64]) -> dict[str, int] | None:
        """Count the mistakes that most trials share, those of some and those of this one only."""
        if self._votes is None:
            return None
        labels = self._data.labels[self._rows]
        shares = [float((self._votes[:, i] != labels[i]).mean()) for i in wrong]
        most = sum(share >= _AGREED for share in shares)
        some = sum(0.5 <= share < _AGREED for share in shares)
        return {"most": most, "some": some, "few": len(shares) - most - some}

    def _shown(self, wrong: NDArray[np.int64]) -> NDArray[np.int64]:
        sure = self._p[wrong, self.predicted[wrong]]
        return wrong[np.argsort(-sure, kind="stable")][:MISTAKES]

    def _image(self, index: int, right: bool = False) -> dict[str, Any]:
        row = int(self._rows[index])
        label = int(self._data.labels[row])
        p = self._p[index]
        second = int(np.argsort(-p, kind="stable")[1])
        return {
            "row": row,
            "name": self._data.names[row],
            "true": self._data.classes[label],
            "predicted": self._data.classes[self.predicted[index]],
            "second": self._data.classes[second],
            "p": float(p[self.predicted[index]]),
            "p_true": float(p[label]),
            "p_second": float(p[second]),
            "right": right,
            "why": "" if right else self._why(index, label, second),
        }

    def _why(self, index: int, label: int, second: int) -> str:
        sentences = []
        if self._votes is not None:
            said = self._votes[:, index]
            wrong, all_ = int((said != label).sum()), len(said)
            same = int((said == self.predicted[index]).sum())
            if same >= _AGREED * all_:
                sentences.append(f"{same} of {all_} trials say the same: look at the label.")
            elif 2 * wrong >= all_:
                sentences.append(f"{wrong} of {all_} trials get it wrong: a hard image.")
            else:
                sentences.append(f"{all_ - wrong} of {all_} trials get it right: this one's slip.")
        if second == label:
            sentences.append("The right class came second.")
        return " ".join(sentences)


def _matrix(matrix: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix of at most ``CLASSES`` classes: those with the most mistakes."""
    chosen = np.arange(len(classes))
    if len(classes) > CLASSES:
        errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
        chosen = np.sort(np.argsort(-errors, kind="stable")[:CLASSES])
    return {
        "classes": [classes[i] for i in chosen.tolist()],
        "counts": matrix[np.ix_(chosen, chosen)].tolist(),
        "of": len(classes),
    }


def _classes(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return figures a class; of very many classes, those with the lowest recall."""
    named = [{"name": name, **row} for name, row in zip(classes, rows, strict=True)]
    if len(named) <= LISTED_CLASSES:
        return named
    seen = [row for row in named if row["recall"] is not None]
    return sorted(seen, key=lambda row: (row["recall"], -row["support"]))[:LISTED_CLASSES]


def _pairs(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent confusions."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = []
    for cell in order:
        true, predicted = divmod(int(cell), len(classes))
        if count := int(wrong[true, predicted]):
            support = int(matrix[true].sum())
            names = {"true": classes[true], "predicted": classes[predicted]}
            pairs.append({**names, "count": count, "of": support})
    return pairs
