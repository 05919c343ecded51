"""What we record of a trial beside what Optuna does, and what it says of the trial."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FACTS = "facts"
"""The user attribute that holds what is recorded of a trial."""
FILES = "files"
"""Among the facts: the trial's artifacts by file name, each with ``id`` and ``sha256``."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOST = "lost"
"""The user attribute of a trial that ended through no fault of its own: why, and what follows.

Apart from ``FACTS``, because two may end a trial at once: the worker that runs it, and a search
that takes that worker for dead. Of a trial that is not failed in the end, it means nothing.
"""
RETRY_OF = "retry_of"
"""The user attribute that names the trial which this one is another attempt at."""
UNSPENT = "unspent"
"""The user attribute of an attempt before which the trial was only stopped, and never died."""


def facts_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what is recorded of a trial; nothing of one that has just begun."""
    facts: dict[str, Any] = trial.user_attrs.get(FACTS, {})
    if trial.state == TrialState.FAIL:
        return {**facts, **trial.user_attrs.get(LOST, {})}
    return facts


def is_artifact(value: Any) -> bool:
    """Whether Optuna calls an artifact so, in every store: by a UUID as ``str`` writes it."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def given_up(trial: FrozenTrial) -> bool:
    """Whether a trial died or was stopped and is tried again, so that it does not count."""
    return trial.state == TrialState.FAIL and bool(facts_of(trial).get("retried"))


def twin_of(trial: FrozenTrial) -> int | None:
    """Return the number of the trial whose figures one took over, None if it was trained itself."""
    number: int | None = facts_of(trial).get("twin_of")
    return number
