"""Tells a study's observers what happens, so that a broken or slow one never stops the search."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from automl_tl.errors import UsageError
from automl_tl.plugins import get_plugins
from automl_tl.specs import FinishedEpoch, FinishedTrial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from automl_tl.study import StudyDirectory
    from automl_tl.types import EpochReport

PATIENCE = 30.0
"""Seconds for an observer to catch up after a trial: creating MLflow's database took 11."""
LEAST = 1.0
"""Seconds that it gets when the search's time is up."""


class _Observer:
    """One observer, in a thread of its own that hears one event after the other."""

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self.name = name
        self._warn = warn
        self._events: queue.Queue[FinishedEpoch | FinishedTrial | threading.Event] = queue.Queue()
        self._failed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def tell(self, event: FinishedEpoch | FinishedTrial) -> None:
        self._events.put(event)

    def mark(self) -> threading.Event:
        """Return what is set once everything said so far was heard."""
        mark = threading.Event()
        self._events.put(mark)
        return mark

    def _listen(self) -> None:
        while True:
            event = self._events.get()
            if isinstance(event, threading.Event):
                event.set()
                continue
            problem = get_plugins().tell(self.name, event)
            if problem and not self._failed:
                self._failed = True
                self._warn(f"Plugin {problem.plugin}: {problem.message}")


class Observers:
    """The observers of one study. Their first errors are reported by name, and ignored.

    Args:
        study: The study directory, which names them.
        warn: Told what is wrong with them, in any thread.
    """

    def __init__(self, study: StudyDirectory, warn: Callable[[str], None]) -> None:
        self._study = study
        self._warn = warn
        self._observers: list[_Observer] = []
        for name in study.config.log:
            try:
                self._observers.append(_Observer(get_plugins().observer(name), warn))
            except UsageError as error:
                warn(str(error))

    def epoch(self, number: int, report: EpochReport, value: float) -> None:
        """Tell all observers of an epoch of trial ``number``; returns at once."""
        event = FinishedEpoch(
            study=self._study.name,
            directory=self._study.path,
            number=number,
            phase=report.phase,
            epoch=report.epoch,
            epochs=report.epochs,
            metric=self._study.config.metric,
            value=value,
            train_loss=report.train_loss,
            learning_rate=report.learning_rate,
            seconds=report.seconds,
        )
        for observer in self._observers:
            observer.tell(event)

    def trial(
        self,
        number: int,
        state: str,
        value: float | None,
        params: Mapping[str, Any],
        attributes: Mapping[str, Any],
    ) -> None:
        """Tell all observers of a trial, as ``FinishedTrial`` has it; returns at once."""
        event = FinishedTrial(
            study=self._study.name,
            directory=self._study.path,
            number=number,
            state=state,
            metric=self._study.config.metric,
            value=value,
            params=params,
            attributes=attributes,
        )
        for observer in self._observers:
            observer.tell(event)

    def wait(self, deadline: float) -> None:
        """Wait until all observers heard everything; drop, by name, those that take too long.

        Args:
            deadline: ``time.monotonic()`` at which the search should be over.
        """
        now = time.monotonic()
        end = now + max(LEAST, min(PATIENCE, deadline - now))
        marks = [(observer, observer.mark()) for observer in self._observers]
        for observer, mark in marks:
            if not mark.wait(max(0.0, end - time.monotonic())):
                self._observers.remove(observer)
                self._warn(
                    f"Plugin {observer.name}: it is told nothing more, because it was still busy "
                    f"{end - now:.0f} seconds after a trial."
                )
