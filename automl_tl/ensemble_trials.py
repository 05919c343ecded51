"""Which trials of a study can be members of an ensemble, and what they would reach together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.ensemble import Ensemble, select
from automl_tl.errors import ExportError
from automl_tl.identify import identify
from automl_tl.kept import model_file
from automl_tl.testsplit import read_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import optuna
    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

CONSIDERED = 100
"""So many of the best trials are considered for what would be reached if all had been kept."""
ROOM = 2**30
"""Bytes that their probabilities may take."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished trial whose model is kept.

    Attributes:
        number: Of the trial.
        facts: Of its model file.
        logits: On the validation split, ``(n, classes)``.
    """

    number: int
    facts: ModelFacts
    logits: NDArray[np.float32]


def kept(
    directory: StudyDirectory, data: StudyData, complete: Sequence[optuna.trial.FrozenTrial]
) -> list[Candidate]:
    """Return the trials whose models are kept and take the same pixels as the best of them.

    Args:
        directory: The study directory.
        data: The study's data.
        complete: Finished trials, the best first.
    """
    found: list[Candidate] = []
    for trial in complete:
        path = model_file(directory, trial.number)
        if path is None:  # of nearly all trials; their logits need not be opened
            continue
        logits = read_logits(directory, data, trial.number, "validation")
        if logits is None:
            continue
        try:
            facts = identify(path).facts
        except ExportError:
            continue
        if not found or _pixels(facts) == _pixels(found[0].facts):
            found.append(Candidate(trial.number, facts, logits))
    return found


def considered(
    data: StudyData, complete: Sequence[optuna.trial.FrozenTrial]
) -> Sequence[optuna.trial.FrozenTrial]:
    """Return the trials to ask ``reachable`` of: the best 100, fewer where these need over 1 GiB.

    Args:
        data: The study's data.
        complete: Finished trials, the best first.
    """
    held = 4 * len(data.rows("validation")) * len(data.classes)
    return complete[: max(1, min(CONSIDERED, ROOM // max(1, held)))]


def reachable(
    directory: StudyDirectory, data: StudyData, complete: Sequence[optuna.trial.FrozenTrial]
) -> Ensemble | None:
    """Choose among finished trials, kept or not; members are trial numbers.

    The probabilities of all are held at once: give it no more than ``considered`` does. None when
    no trial's logits are stored.
    """
    stored = {
        trial.number: logits
        for trial in complete
        if (logits := read_logits(directory, data, trial.number, "validation")) is not None
    }
    return choose(directory, data, stored) if stored else None


def choose(
    directory: StudyDirectory, data: StudyData, logits: dict[int, NDArray[np.float32]]
) -> Ensemble:
    """Choose among trials by the study's metric on validation; members are trial numbers."""
    numbers = list(logits)
    labels = data.labels[data.rows("validation")]
    found = select(list(logits.values()), labels, directory.config.metric)
    return Ensemble({numbers[i]: count for i, count in found.draws.items()}, found.value)


def propose(
    directory: StudyDirectory, data: StudyData, complete: Sequence[optuna.trial.FrozenTrial]
) -> dict[str, Any] | None:
    """Return the ensemble of kept trials that is better than the best trial, JSON-ready.

    Returns:
        ``members`` (``trial``, ``draws``, ``weight``) and ``value``, the metric on validation; None
        when no ensemble is better.
    """
    candidates = kept(directory, data, complete)
    if len(candidates) < 2:
        return None
    found = choose(directory, data, {one.number: one.logits for one in candidates})
    if len(found.draws) < 2:
        return None
    return {"members": members(found), "value": found.value}


def members(ensemble: Ensemble) -> list[dict[str, Any]]:
    """Return an ensemble's members, JSON-ready: ``trial``, ``draws``, ``weight``."""
    return [
        {"trial": number, "draws": ensemble.draws[number], "weight": weight}
        for number, weight in ensemble.weights.items()
    ]


def _pixels(facts: ModelFacts) -> tuple[int, str]:
    return facts.image_size, facts.resize
