"""The trials of a study as one process knows them: each finished one is looked at once."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from optuna.study import StudyDirection
from optuna.trial import TrialState

from automl_tl.facts import facts_of, given_up, twin_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna
    from optuna.trial import FrozenTrial


class Ledger:
    """Keeps the trials of a study in order, at the cost of those that are new.

    A finished trial never changes. Whoever goes through all of them for every trial makes a study
    of ten thousand a hundred times as dear, a trial, as one of a hundred.

    Twins, which took over the figures of another trial, are finished trials like all others, and
    have no rank: they have no model, and the better the trial, the more of them there are.

    Args:
        study: The Optuna study; of one objective.

    Attributes:
        open: The trials that were not finished at the last look, by number.
        counted: Trials that count: finished, and not tried again. Bounds are in these.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.open: list[FrozenTrial] = []
        self.counted = 0
        self._rank = rank(study)
        self._trials: list[FrozenTrial] = []
        self._finished: list[int] = []
        self._ranked: list[tuple[float, int]] = []

    def look(self) -> list[FrozenTrial]:
        """Return the trials that finished since the last look, by number."""
        known = len(self._trials)
        self._trials = self.study.get_trials(deepcopy=False)
        numbers = (*(trial.number for trial in self.open), *range(known, len(self._trials)))
        candidates = [self._trials[number] for number in numbers]
        news = [trial for trial in candidates if trial.state.is_finished()]
        self.open = [trial for trial in candidates if not trial.state.is_finished()]
        for trial in news:
            insort(self._finished, trial.number)
            self.counted += not given_up(trial)
            if trial.state == TrialState.COMPLETE and twin_of(trial) is None:
                insort(self._ranked, self._rank(trial))
        return news

    def __len__(self) -> int:
        """Return the number of finished trials."""
        return len(self._finished)

    def __getitem__(self, number: int) -> FrozenTrial:
        """Return a trial by its number, as it was at the last look."""
        return self._trials[number]

    def best(self, most: int, before: int | None = None) -> list[FrozenTrial]:
        """Return complete trials that are nobody's twins, best first; of equal ones, the earlier.

        Args:
            most: How many at most.
            before: Only trials with smaller numbers.
        """
        found: list[FrozenTrial] = []
        for _, number in self._ranked:
            if len(found) == most:
                break
            if before is None or number < before:
                found.append(self._trials[number])
        return found

    def latest(self, most: int) -> list[FrozenTrial]:
        """Return the finished trials with the highest numbers, ascending."""
        return [self._trials[number] for number in self._finished[-most:]]


def rank(study: optuna.Study) -> Callable[[FrozenTrial], tuple[float, int]]:
    """Return what sorts complete trials: best first; of equal ones, the earlier."""
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    return lambda trial: (sign * float(trial.values[0]), trial.number)


def seconds(trial: FrozenTrial) -> float:
    """Return how long a finished trial took, its share where several ran at once; never 0."""
    assert trial.duration is not None, "it has finished"
    known = facts_of(trial).get("duration_s")
    return max(trial.duration.total_seconds() if known is None else known, 1e-3)
