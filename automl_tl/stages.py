"""How long one-off work says how far it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from automl_tl.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EVERY = 0.1
"""Seconds between two events about the same work."""


class Stage(Protocol):
    """What is told."""

    def __call__(self, what: str, done: int, total: int, unit: str = "images") -> None:
        """Say how far work is.

        Args:
            what: Its name; another name is other work.
            done: How much is done.
            total: Of how much; 0 where nobody knows.
            unit: ``images`` or ``bytes``.
        """


def silent(what: str, done: int, total: int, unit: str = "images") -> None:
    """Tell nobody."""


def as_events(tell: Callable[[Mapping[str, Any]], None], deadline: float) -> Stage:
    """Return a stage that becomes events of a search, ten a second at most.

    Args:
        tell: Told the events.
        deadline: ``time.monotonic()`` from which on reading images raises ``StudyError``.
    """
    last = 0.0

    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        nonlocal last
        now = time.monotonic()
        if now > deadline and unit == "images":  # downloads have an end of their own
            raise StudyError(
                f"The time was up after {what} {done} of {total} images: give more with --time."
            )
        if now - last >= EVERY or done >= total:
            last = now
            facts = {"what": what, "done": done, "total": total, "unit": unit}
            tell({"event": "stage", "worker": None, **facts})

    return stage
