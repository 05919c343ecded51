"""A search as a live table on a terminal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from automl_tl.cli import bars, words
from automl_tl.cli.console import cell, number, say, stderr, table
from automl_tl.cli.doing import Doing, doing
from automl_tl.cli.state import SHOWN_TRIALS, STATES, Event, SearchProgress, SearchState
from automl_tl.units import format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PLANS = 140
"""Columns from which on it says what a trial reads from the store."""
STATE_STYLES = {"complete": "", "pruned": "dim", "failed": "red"}


class Dashboard:
    """Draws a ``SearchState``; narrow terminals lose columns."""

    def __init__(self, state: SearchState) -> None:
        self.state = state

    def draw(self, width: int) -> RenderableType:
        """Return the parts that have something to say, for a terminal of ``width`` columns."""
        from rich.console import Group

        wide = width >= bars.WIDE
        parts: list[RenderableType] = [self._summary(wide)]
        if rows := list(doing(self.state, wide)):
            parts.append(self._workers(rows, width))
        if self.state.running or self.state.finished:
            parts.append(self._trials(wide))
        return Group(*parts)

    def _summary(self, wide: bool) -> Text:
        from rich.text import Text

        state, text = self.state, Text()
        if not state.study:
            text.append("preparing", style="bold")
            return text.append(f"  time {format_duration(state.elapsed)}")
        bound = state.study.get("bounds") or {}
        text.append(cell(state.study["name"]), style="bold")
        if state.best is not None:
            text.append("  best ")
            text.append(f"{state.metric} {number(state.best['value'])}", style="bold green")
            text.append(f"  trial {state.best['number']}, {words.recipe(state.best)}")
        trials = f"{state.done} of {bound['trials']}" if bound.get("trials") else str(state.done)
        text.append(f"\ntrials {trials}")
        counts = [f"{state.counts[s]} {s}" for s in STATES if state.counts.get(s)]
        text.append(f" ({', '.join(counts)})" if counts else "")
        separator = "  " if wide else "\n"
        text.append(f"{separator}time {format_duration(state.elapsed)}")
        if state.time_left is not None:
            text.append(f", {format_duration(state.time_left)} left")
        if bound.get("target") is not None:
            text.append(f"  target {bound['target']}")
        if state.reuse.stored or state.reuse.seconds:
            saved = f"reuse saved {format_duration(state.reuse.seconds)}"
            text.append(f"{separator}{plural(state.reuse.stored, 'array')} stored, {saved}")
        if state.stopping:
            text.append(f"\n{words.stopping(state.stopping, state.study)}", style="yellow")
        return text

    def _workers(self, found: Sequence[Doing], width: int) -> Table:
        from rich.text import Text

        wide = width >= bars.WIDE
        rows = bars.grid()
        named = max(len(row.who) for row in found)
        used = named + max(len(row.what) for row in found) + max(len(row.facts) for row in found)
        room = width - used - bars.width(wide) - 8  # two columns of space between the parts
        for row in found:
            what, facts = Text(cell(row.what)), Text(row.facts)
            if row.plan and width >= _PLANS and room > 0:
                facts.append("  ")
                plan = Text(cell(row.plan), "dim")
                plan.truncate(room, overflow="ellipsis")
                facts.append(plan)
            parts = [what, bars.bar(row.done, row.total, wide), facts]
            rows.add_row(*([row.who] if named else []), *parts)
        rows.columns[0].min_width = named
        return rows

    def _trials(self, wide: bool) -> Table:
        """Return a table of the trials that run, the newest first, and below of those that ran."""
        board = table(words.columns(self.state.metric, wide))
        now = self.state.clock()
        for running in sorted(self.state.running.values(), key=lambda r: -r.number)[:SHOWN_TRIALS]:
            epoch = running.epoch
            trial: dict[str, Any] = {
                **running.facts,
                "number": f"> {running.number}",
                "state": "running",
                "value": epoch.get("value"),
                "epochs": epoch.get("epoch", -1) + 1,
                "planned_epochs": epoch.get("epochs"),
                "duration_s": now - running.started,
            }
            board.add_row(*words.row(trial, wide), style="cyan")
        for done in reversed(self.state.finished):
            style = STATE_STYLES.get(done["state"], "")
            board.add_row(*words.row(done, wide), style="bold green" if done.get("best") else style)
        return board


class LiveProgress(SearchProgress):
    """Shows events as a table that is redrawn in place and goes away at the end.

    Notes and warnings are printed above it and stay.

    Args:
        metric: Name of the study's metric.
        console: Where to draw; standard error by default.
        clock: Returns seconds.
    """

    def __init__(
        self,
        metric: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.live import Live

        super().__init__(metric, clock)
        self.console = console or stderr()
        self._lock = threading.Lock()
        self._dashboard = Dashboard(self.state)
        self._frame: tuple[int, RenderableType] = (0, "")
        self._live = Live(
            console=self.console,
            get_renderable=self.draw,
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def close(self) -> None:
        """Take the table away and give the terminal back."""
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in one event; the next redraw shows it."""
        with self._lock:
            self.state.update(event)
        kind = event["event"]
        if kind == "study":
            self._above(words.study(event), "")
        elif kind == "note":
            self._above(str(event["text"]), "")
        elif kind == "warning":
            self._above(f"Warning: {event['text']}", "yellow")
        elif kind == "worker_died":
            self._above(f"Warning: {words.worker_died(event)}", "yellow")
        elif kind == "stopping":
            self._above(words.stopping(str(event["reason"]), self.state.study), "yellow")
        elif kind == "trial_finished" and event["state"] == "failed":
            self._above(words.finished_trial(event, self.state.metric), "red")

    def draw(self) -> RenderableType:
        """Return the table as it is now; events and redraws come from different threads."""
        with self._lock:
            self._mend()
            width = self.console.width
            self._frame = width, self._dashboard.draw(width)
            return self._frame[1]

    def _mend(self) -> None:
        """Erase the frame where the terminal became narrower and broke its lines in two.

        Rich erases as many rows as it drew. The cursor goes to the top of the frame, and from
        there down to where Rich thinks that it is.
        """
        from rich.control import Control
        from rich.segment import ControlType, Segment

        before, frame = self._frame
        width = self.console.width
        self._frame = width, frame
        if width >= before:
            return
        options = self.console.options.update(width=before)
        lines = self.console.render_lines(frame, options, pad=False)[: self.console.height]
        rows = sum(max(1, -(-Segment.get_line_length(line) // width)) for line in lines)
        erase = (ControlType.ERASE_IN_LINE, 2)
        up = ((ControlType.CURSOR_UP, 1), erase) * (rows - 1)
        down = ((ControlType.CURSOR_DOWN, 1),) * (len(lines) - 1)
        self.console.control(Control(ControlType.CARRIAGE_RETURN, erase, *up, *down))

    def _above(self, text: str, style: str) -> None:
        with self._lock:
            self._mend()
        say(self.console, text, style)
