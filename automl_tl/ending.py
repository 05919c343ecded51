"""When and why a search ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from automl_tl.units import are, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.bounds import Bounds
    from automl_tl.tally import Tally

STOP_SECONDS = 3.0
"""Kept back from ``--time`` for stopping, beside what saving and the test split take."""


class Ending:
    """Holds a search's bounds against what it has done.

    Args:
        bounds: When to end.
        tally: What the search counts.
        tell: Told once that the search stops, and why.

    Attributes:
        reason: Why it ends, None while it goes on.
    """

    def __init__(
        self, bounds: Bounds, tally: Tally, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.reason: str | None = None
        self._bounds = bounds
        self._tally = tally
        self._tell = tell
        self._stopped_at = 0.0

    def stop(self, reason: str) -> None:
        """Begin to end; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._stopped_at = time.monotonic()
            self._tell({"event": "stopping", "reason": reason})

    def seconds_left(self) -> float:
        """Return the seconds until trials have to stop, so that models and the test have theirs."""
        kept = STOP_SECONDS + self._tally.closing_seconds if self._bounds.seconds else 0.0
        return self._bounds.deadline - time.monotonic() - kept

    def watch_target(self) -> None:
        """Stop when the best trial is good enough."""
        target = self._bounds.target
        if target is not None and self._tally.reached(target):
            self.stop(f"the target {target:g} is reached")

    def watch_clock(self) -> None:
        """Stop when the time is up."""
        if self.seconds_left() <= 0:
            self.stop("the time is up")

    def left(self, begun: int) -> int | None:
        """Return how many trials are still to begin, None for no bound.

        Args:
            begun: How many trials run or are granted.
        """
        limit = self._bounds.trials
        return None if limit is None else limit - self._tally.finished - begun

    def may_start(self, begun: int) -> bool:
        """Whether another trial may begin; if not, and nothing runs, the search is over.

        Args:
            begun: As for ``left``.
        """
        limit = self._bounds.trials
        self.watch_target()
        if self.reason:
            return False
        if limit is not None and self._tally.finished + begun >= limit:
            if not begun:
                self.stop(f"{plural(limit, 'trial')} {are(limit)} finished")
            return False
        self.watch_clock()
        return self.reason is None

    def overdue(self, grace: float) -> bool:
        """Whether what was asked to stop has had its time, of which ``grace`` is to obey."""
        patience = grace + STOP_SECONDS + self._tally.closing_seconds
        return self.reason is not None and time.monotonic() - self._stopped_at > patience
