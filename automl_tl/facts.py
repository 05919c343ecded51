"""What we record of a trial beside what Optuna does, and what it says of the trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FACTS = "facts"
"""The user attribute that holds what is recorded of a trial."""
FILES = "files"
"""Among the facts: the trial's artifacts by file name, each with ``id`` and ``sha256``."""
RETRY_OF = "retry_of"
"""The user attribute that names the trial which this one is another attempt at."""


def facts_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what is recorded of a trial; nothing of one that has just begun."""
    facts: dict[str, Any] = trial.user_attrs.get(FACTS, {})
    return facts


def given_up(trial: FrozenTrial) -> bool:
    """Whether a trial died and was enqueued again, so that it does not count."""
    return trial.state == TrialState.FAIL and bool(facts_of(trial).get("retried"))


def twin_of(trial: FrozenTrial) -> int | None:
    """Return the number of the trial whose figures one took over, None if it was trained itself."""
    number: int | None = facts_of(trial).get("twin_of")
    return number
