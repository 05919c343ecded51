"""What the events of a search have said so far; the live table draws it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Event = Mapping[str, Any]

SHOWN_TRIALS = 8
STATES = ("complete", "pruned", "failed")


@dataclass
class Running:
    """A trial that runs.

    Attributes:
        number: Of the trial.
        worker: Who runs it.
        facts: Its ``trial_asked`` event, then its ``trial_started`` event.
        epoch: Its last ``epoch`` event, empty before the first.
        started: When it began, on the state's clock.
    """

    number: int
    worker: int | None
    facts: Event
    started: float
    epoch: Event = field(default_factory=dict)


@dataclass
class Stage:
    """Long one-off work, such as decoding images.

    Attributes:
        what: Its name.
        done: Images done, or bytes.
        total: In all; 0 or 1 where nobody knows how far it is.
        started: When it was first heard of, on the state's clock.
        unit: ``images`` or ``bytes``.
        first: Done by then.
        updated: When it was last heard of.
    """

    what: str
    done: int
    total: int
    started: float
    unit: str = "images"
    first: int = field(init=False)
    updated: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to count from here."""
        self.first, self.updated = self.done, self.started

    def advance(self, done: int, total: int, now: float) -> None:
        """Take in how far it is by now."""
        self.done, self.total, self.updated = done, total, now

    @property
    def unmeasured(self) -> bool:
        """Whether nobody knows how far it is."""
        return self.total <= 1

    @property
    def rate(self) -> float | None:
        """Images or bytes a second, None while it is unknown."""
        elapsed = self.updated - self.started
        return (
            (self.done - self.first) / elapsed if elapsed > 0 and self.done > self.first else None
        )

    @property
    def remaining(self) -> float | None:
        """Seconds left at that rate, None while it is unknown."""
        rate = self.rate
        return (self.total - self.done) / rate if rate else None


@dataclass
class Reuse:
    """What the finished trials stored of frozen layers, and what it saved them.

    Attributes:
        stored: Arrays that were computed.
        seconds: What reading arrays saved.
    """

    stored: int = 0
    seconds: float = 0.0

    def add(self, reuse: Mapping[str, Any] | None) -> None:
        """Count one trial's in."""
        if reuse:
            self.stored += len(reuse["passes"])
            self.seconds += float(reuse["seconds"])


class SearchState:
    """Folds events into what is worth showing."""

    def __init__(self, metric: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.metric = metric
        self.clock = clock
        self.began = clock()
        self.study: Event = {}
        self.finished: deque[Event] = deque(maxlen=SHOWN_TRIALS)
        self.counts = dict.fromkeys(STATES, 0)
        self.earlier = 0
        self.running: dict[int, Running] = {}
        self.workers: set[int] = set()
        self.reuse = Reuse()
        self.stages: dict[tuple[int | None, str], Stage] = {}
        self.best: Event | None = None
        self.stopping: str | None = None
        self.reason: str | None = None

    def update(self, event: Event) -> None:
        """Take in one event; kinds that are not known are ignored."""
        if event.get("worker") is not None:
            self.workers.add(int(event["worker"]))
        handler: Callable[[Event], None] | None = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:
            handler(event)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search."""
        return (self.stopping or self.reason) == "interrupted"

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return self.clock() - self.began

    @property
    def time_left(self) -> float | None:
        """Seconds until the time bound, None without one."""
        bound = self.study.get("bounds", {}).get("time")
        return None if bound is None else max(0.0, bound - self.elapsed)

    @property
    def done(self) -> int:
        """Finished trials of the whole study, those before a resume included."""
        return self.earlier + sum(self.counts.values())

    def _on_study(self, event: Event) -> None:
        self.study = event
        self.earlier = int(event.get("finished") or 0)
        if event.get("best"):
            self.best = event["best"]
            self.finished.append(event["best"])
        self.began = self.clock() - float(event.get("elapsed") or 0)

    def _on_stage(self, event: Event) -> None:
        key = (event.get("worker"), str(event["what"]))
        done, total, now = int(event["done"]), int(event["total"]), self.clock()
        if done >= total > 0:
            self.stages.pop(key, None)
            return
        stage = self.stages.get(key)
        if stage is None or done < stage.done:
            self.stages[key] = Stage(key[1], done, total, now, str(event.get("unit", "images")))
        else:
            stage.advance(done, total, now)

    def _on_trial_asked(self, event: Event) -> None:
        number = int(event["number"])
        self.running[number] = Running(number, event.get("worker"), event, self.clock())

    def _on_trial_started(self, event: Event) -> None:
        known = self.running.get(int(event["number"]))
        if known is None:
            self._on_trial_asked(event)
        else:
            known.facts = event

    def _on_epoch(self, event: Event) -> None:
        running = self.running.get(int(event["number"]))
        if running is not None:
            running.epoch = event
            self._forget_stages(running.worker)

    def _on_trial_finished(self, event: Event) -> None:
        running = self.running.pop(int(event["number"]), None)
        if running is not None:
            self._forget_stages(running.worker)
        self.counts[event["state"]] = self.counts.get(event["state"], 0) + 1
        self.finished.append(event)
        self.reuse.add(event.get("reuse"))
        if event.get("best"):
            self.best = event

    def _on_worker_died(self, event: Event) -> None:
        self._forget_stages(event.get("worker"))
        for number, running in list(self.running.items()):
            if running.worker == event.get("worker"):
                del self.running[number]

    def _on_stopping(self, event: Event) -> None:
        self.stopping = str(event["reason"])

    def _on_finished(self, event: Event) -> None:
        self.reason = str(event["reason"])
        self.running.clear()
        self.stages.clear()

    def _forget_stages(self, worker: int | None) -> None:
        for key in [key for key in self.stages if key[0] == worker]:
            del self.stages[key]


class SearchProgress:
    """Shows the events of a search; base of the two ways to do so.

    Args:
        metric: Name of the study's metric.
        clock: Returns seconds.
    """

    def __init__(self, metric: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = SearchState(metric, clock)

    def __enter__(self) -> Self:
        """Begin to show events."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close, however the search ended."""
        self.close()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self.state.update(event)

    def close(self) -> None:
        """Show nothing more; may be called again."""
