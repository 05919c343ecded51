"""Whether two sides were equally accurate: a ratio of speeds counts only then."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import Table

Values = Mapping[int, Sequence[float]]
"""Validation accuracies by trial, one for each seed."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Accuracies of the trials that both sides ran.

    Attributes:
        ours: Mean over trials and seeds.
        theirs: Likewise.
        spread: What a trial's accuracy varies by between seeds: highest less lowest, the mean over
            trials, of the side that varies more. None when nothing was repeated.
        trials: How many are compared.
    """

    ours: float
    theirs: float
    spread: float | None
    trials: int

    @property
    def counts(self) -> bool:
        """Whether the difference is no larger than what a seed makes."""
        return self.spread is not None and abs(self.ours - self.theirs) <= self.spread

    def table(self, rival: str) -> Table:
        """Return it as a table."""
        columns = ("trials", "ours", rival, "difference", "spread of seeds", "the ratio counts")
        difference = self.ours - self.theirs
        row = (self.trials, self.ours, self.theirs, difference, self.spread, self.counts)
        return Table("Validation accuracy", columns, [row])


def agree(ours: Values, theirs: Values) -> Agreement:
    """Compare the trials that both ran."""
    both = sorted(set(ours) & set(theirs))
    spreads = [found for found in (_spread(ours, both), _spread(theirs, both)) if found is not None]
    return Agreement(
        _mean(ours, both), _mean(theirs, both), max(spreads) if spreads else None, len(both)
    )


def _mean(values: Values, trials: Sequence[int]) -> float:
    return statistics.fmean(statistics.fmean(values[trial]) for trial in trials)


def _spread(values: Values, trials: Sequence[int]) -> float | None:
    repeated = [values[trial] for trial in trials if len(values[trial]) > 1]
    if not repeated:
        return None
    return statistics.fmean(max(found) - min(found) for found in repeated)
