"""A search in plain lines: one a finished trial on standard output, the rest on standard error."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING

from automl_tl.cli import words
from automl_tl.cli.bars import amount
from automl_tl.cli.console import write
from automl_tl.cli.doing import PHASES
from automl_tl.cli.state import Event, SearchProgress, Stage
from automl_tl.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

STAGE_EVERY = 10.0
"""Seconds between two lines about the same long work."""


class PlainProgress(SearchProgress):
    """Prints events as lines.

    Args:
        metric: Name of the study's metric.
        clock: Returns seconds.
    """

    def __init__(self, metric: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(metric, clock)
        self._said: dict[tuple[int | None, str], tuple[Stage, float]] = {}

    def __call__(self, event: Event) -> None:
        """Print what the event is worth."""
        super().__call__(event)
        kind = event["event"]
        if kind == "trial_finished":
            self._print(words.finished_trial(event, self.state.metric), sys.stdout)
        elif kind == "study":
            self._print(words.study(event))
        elif kind == "note":
            self._print(str(event["text"]))
        elif kind == "warning":
            self._print(f"Warning: {event['text']}")
        elif kind == "worker_died":
            self._print(f"Warning: {words.worker_died(event)}")
        elif kind == "stopping":
            self._print(words.stopping(str(event["reason"]), self.state.study))
        elif kind == "stage":
            self._stage(event)

    def _stage(self, event: Event) -> None:
        """Say how far long work is, now and then; training says it by its trial's line."""
        key = (event.get("worker"), str(event["what"]))
        stage = self.state.stages.get(key)
        if stage is None or stage.what in PHASES:
            return
        said, when = self._said.get(key, (None, 0.0))
        if said is not stage:
            self._said[key] = stage, stage.started
        elif stage.updated - when >= STAGE_EVERY:
            self._said[key] = stage, stage.updated
            rate = f", {amount(stage.rate, stage.unit)}/s" if stage.rate else ""
            left = f", {format_duration(stage.remaining)} left" if stage.remaining else ""
            done, total = amount(stage.done, stage.unit), amount(stage.total, stage.unit)
            self._print(f"{words.stage(stage.what)}: {done} of {total}{rate}{left}")

    def _print(self, text: str, stream: IO[str] | None = None) -> None:
        write(text, stream or sys.stderr)
