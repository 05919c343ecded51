"""What a search counts: trials that finished, the best of them, and signs that going on is vain."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from automl_tl import metrics
from automl_tl.facts import facts_of, given_up
from automl_tl.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

MAX_FAILURES = 5
MAX_TWINS = 20
"""Trials in a row that were tried before, after which the space counts as exhausted."""


class Tally:
    """Counts the trials of one study, from its storage and from what workers say.

    Args:
        metric: The study's.

    Attributes:
        best: Number and value of the best trial, None without one.
        closing_seconds: The longest that saving a model and the test split take.
        failures: Reasons of the trials that failed since one last succeeded.
    """

    def __init__(self, metric: str) -> None:
        self.best: tuple[int, float] | None = None
        self.closing_seconds = 0.0
        self.failures: list[str] = []
        self._metric = metric
        self._twins = 0
        self._counted: set[int] = set()
        self._ledger: Ledger | None = None

    @property
    def finished(self) -> int:
        """How many trials count: those that finished, and are not tried again."""
        return len(self._counted)

    def read(self, study: optuna.Study) -> None:
        """Count what lies in the storage, at the cost of what is new there."""
        if self._ledger is None:
            self._ledger = Ledger(study)
        for trial in self._ledger.look():
            self.expect(facts_of(trial).get("closing_seconds", 0.0))
            if not given_up(trial):
                self._counted.add(trial.number)
        for best in self._ledger.best(1):
            self.best = best.number, float(best.values[0])

    def expect(self, closing_seconds: float) -> None:
        """Take note of what saving a model and the test split would take."""
        self.closing_seconds = max(self.closing_seconds, closing_seconds)

    def add(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Count a trial that finished, unless ``read`` has found it already.

        Args:
            told: A worker's ``trial_finished``.

        Returns:
            What a listener is told: all but ``again``, ``twin_of`` and ``closing_seconds``, and
            ``best`` (whether it is), ``best_number``, ``best_value``, ``finished``.
        """
        message = dict(told)
        number = message["number"]
        if not message.pop("again"):
            self._counted.add(number)
        self._twins = self._twins + 1 if message.pop("twin_of") is not None else 0
        self.expect(message.pop("closing_seconds", 0.0))
        better = False
        if message["state"] == "complete":
            self.failures.clear()
            value = message["value"]
            if self.best is None or self._goodness(value) > self._goodness(self.best[1]):
                self.best = number, value
            better = self.best[0] == number
        elif message["state"] == "failed":
            self.failures.append(str(message["reason"]))
        leader, highest = self.best or (None, None)
        counted = {"best_number": leader, "best_value": highest, "finished": self.finished}
        return {**message, "best": better, **counted}

    def reached(self, value: float) -> bool:
        """Whether the best trial is as good as this, or better."""
        return self.best is not None and self._goodness(self.best[1]) >= self._goodness(value)

    def in_vain(self) -> str | None:
        """Return why it makes no sense to go on, None if it does."""
        if self._twins >= MAX_TWINS:
            return "everything in the search space was tried"
        if len(self.failures) >= MAX_FAILURES and self.best is None:
            return "every trial failed"
        return None

    def commonest_failure(self) -> str | None:
        """Return what most trials failed of, None when none did."""
        return Counter(self.failures).most_common(1)[0][0] if self.failures else None

    def _goodness(self, value: float) -> float:
        return metrics.goodness(value, self._metric)
