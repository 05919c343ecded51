"""What later trials of a study are expected to be, from those that were seen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from automl_tl.parameters import SEEN_BY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automl_tl.space import TrialSpec

UNBOUNDED = 20
"""Trials that are expected where the search has no bound on them."""


class Prospects:
    """Counts the trials that could have used what a trial may store.

    Args:
        networks: How many networks the study has; the more, the rarer each is.

    Attributes:
        left: Trials that are still to come.
    """

    def __init__(self, networks: int) -> None:
        self._guess = 0.5 / max(1, networks)
        self._seen: set[int] = set()
        self._counts: Counter[tuple[tuple[Any, ...], int]] = Counter()
        self.left = UNBOUNDED

    def learn(self, number: int, facts: Mapping[str, Any]) -> None:
        """Take in a finished trial; twice is no more than once.

        A frozen one reads pooled features, which are no use to any other.
        """
        if number not in self._seen and "fine_tune_at" in facts:
            self._seen.add(number)
            if facts["fine_tune_at"] < facts["layers"]:
                kind = tuple(facts["spec"].get(name) for name in SEEN_BY)
                self._counts[kind, int(facts["fine_tune_at"])] += 1

    def later(self, spec: TrialSpec, cut: int) -> float:
        """Return how many later trials are expected to use the values at a cut."""
        kind = tuple(getattr(spec, name) for name in SEEN_BY)
        seen = self._counts.items()
        alike = sum(count for (one, at), count in seen if one == kind and at >= cut)
        return self.left * (alike + self._guess) / (len(self._seen) + 1)
