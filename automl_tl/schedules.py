"""Learning-rate schedules as plain functions, so that every framework follows the same curve."""

from __future__ import annotations

import math

from automl_tl.errors import UsageError

SCHEDULES = ("constant", "cosine")
RAMP = 0.05
"""Share of a phase's steps in which the cosine schedule rises linearly from zero."""


def learning_rate(schedule: str, peak: float, step: int, steps: int) -> float:
    """Learning rate of one step.

    ``cosine`` rises linearly over the first 5 % of the steps and then falls to zero along half a
    cosine (Loshchilov and Hutter, SGDR, 2017); ``constant`` stays at the peak.

    Args:
        schedule: ``constant`` or ``cosine``.
        peak: Highest learning rate.
        step: 0-based, counted from the start of the phase.
        steps: Number of steps in the phase.

    Raises:
        UsageError: For an unknown schedule.
    """
    if schedule == "constant":
        return peak
    if schedule != "cosine":
        raise UsageError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}.")
    ramp = max(1, round(RAMP * steps))
    if step < ramp:
        return peak * (step + 1) / ramp
    return peak * 0.5 * (1 + math.cos(math.pi * (step - ramp + 1) / max(1, steps - ramp + 1)))
