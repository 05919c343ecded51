"""When a search ends."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from automl_tl.errors import UsageError
from automl_tl.units import is_count, is_number, parse_duration

DEFAULT_TRIALS = 50
DEFAULT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a search ends.

    Attributes:
        trials: Finished trials of the whole study; None for no bound.
        seconds: Wall time of this search, counted from ``started``; None for no bound.
        target: Value of the metric that is good enough; None for none.
        started: ``time.monotonic()`` at which the clock began to run.
        trial_seconds: Wall time of a single trial, from when it is asked for; None for no bound.
    """

    trials: int | None
    seconds: float | None
    target: float | None
    started: float
    trial_seconds: float | None = None

    @property
    def deadline(self) -> float:
        """``time.monotonic()`` at which everything should be over."""
        return float("inf") if self.seconds is None else self.started + self.seconds


def make_bounds(
    metric: str,
    finished: int,
    trials: int | None,
    seconds: str | float | None,
    target: float | None,
    started: float | None,
    trial_seconds: str | float | None = None,
) -> Bounds:
    """Check what a person asked for; with nothing asked, choose bounds that make sense.

    Args:
        metric: What is optimised.
        finished: Trials that the study has already.
        trials: Finished trials of the study in all.
        seconds: Wall time as ``parse_duration`` takes it.
        target: Value of the metric that is good enough.
        started: ``time.monotonic()`` from which the time counts; now by default.
        trial_seconds: Wall time of a single trial, as ``parse_duration`` takes it; no reason to end
            a search, so it counts beside the chosen bounds too.

    Raises:
        UsageError: When one makes no sense.
    """
    if trials is not None and not is_count(trials):
        raise UsageError(f"trials: expected a whole number from 1, got {trials!r}.")
    highest = math.inf if metric == "log_loss" else 1.0
    if target is not None and not (is_number(target) and 0 <= target <= highest):
        raise UsageError(f"target: expected a value that {metric} can have, got {target!r}.")
    limit = None if seconds is None else parse_duration(seconds)
    if trials is None and limit is None and target is None:
        trials, limit = finished + DEFAULT_TRIALS, DEFAULT_SECONDS
    longest = None if trial_seconds is None else parse_duration(trial_seconds)
    begun = time.monotonic() if started is None else started
    return Bounds(trials, limit, target, begun, longest)


def recorded_bounds(found: Any, metric: str) -> dict[str, Any]:
    """Return bounds that a study recorded, by the names of ``Study.search``.

    Args:
        found: What was read: anything.
        metric: What is optimised.

    Returns:
        The bounds; none at all when one of them makes no sense, which nobody can have asked for.
    """
    if not isinstance(found, dict):
        return {}
    trials, seconds, target = (found.get(name) for name in ("trials", "time", "target"))
    try:
        make_bounds(metric, 0, trials, seconds, target, None, found.get("trial_timeout"))
    except UsageError:
        return {}
    return found
