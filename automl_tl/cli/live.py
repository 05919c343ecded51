"""A search as a live table on a terminal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from automl_tl.cli import words
from automl_tl.cli.console import cell, number, say, stderr, table
from automl_tl.cli.state import STATES, Event, SearchProgress, SearchState
from automl_tl.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

STATE_STYLES = {"complete": "", "pruned": "dim", "failed": "red"}


class Dashboard:
    """Draws a ``SearchState``; narrow terminals lose columns."""

    def __init__(self, state: SearchState) -> None:
        self.state = state

    def draw(self, width: int) -> RenderableType:
        """Return the parts that have something to say, for a terminal of ``width`` columns."""
        from rich.console import Group

        wide = width >= 100
        parts: list[RenderableType] = [self._summary(wide)]
        if self.state.stages:
            parts.append(self._stages(wide))
        if self.state.running:
            parts.append(self._running(wide))
        if self.state.finished:
            parts.append(self._finished(wide))
        return Group(*parts)

    def _summary(self, wide: bool) -> Text:
        from rich.text import Text

        state, text = self.state, Text()
        bound = state.study.get("bounds") or {}
        text.append(cell(state.study.get("name", "search")), style="bold")
        if state.best is not None:
            text.append("  best ")
            text.append(f"{state.metric} {number(state.best['value'])}", style="bold green")
            text.append(f"  trial {state.best['number']}, {words.recipe(state.best)}")
        trials = f"{state.done} of {bound['trials']}" if bound.get("trials") else str(state.done)
        text.append(f"\ntrials {trials}")
        counts = [f"{state.counts[s]} {s}" for s in STATES if state.counts.get(s)]
        text.append(f" ({', '.join(counts)})" if counts else "")
        text.append(f"{'  ' if wide else chr(10)}time {format_duration(state.elapsed)}")
        if state.time_left is not None:
            text.append(f", {format_duration(state.time_left)} left")
        if bound.get("target") is not None:
            text.append(f"  target {bound['target']}")
        if state.stopping:
            text.append(f"\n{words.stopping(state.stopping, state.study)}", style="yellow")
        return text

    def _stages(self, wide: bool) -> Table:
        grid = _grid()
        for _, stage in sorted(self.state.stages.items(), key=lambda item: item[1].started):
            facts = f"{stage.done}/{stage.total}"
            if stage.rate and wide:
                facts += f"  {stage.rate:.0f}/s"
            if stage.remaining is not None:
                facts += f"  {format_duration(stage.remaining)} left"
            grid.add_row(cell(stage.what), _bar(stage.done, stage.total, wide), facts)
        return grid

    def _running(self, wide: bool) -> Table:
        grid = _grid()
        for running in sorted(self.state.running.values(), key=lambda r: r.number):
            epoch: dict[str, Any] = dict(running.epoch)
            done, total = epoch.get("epoch", -1) + 1, epoch.get("epochs", 0)
            name = f"trial {running.number} {cell(running.facts.get('backbone'))}"
            if wide:
                name += f", {words.place(running.facts)}"
            if not epoch:
                seconds = self.state.clock() - running.started
                grid.add_row(name, _bar(0, 1, wide), f"starting  {format_duration(seconds)}")
                continue
            facts = f"{cell(epoch.get('phase'))} {done}/{total}"
            facts += f"  {number(epoch.get('value'))}" if epoch.get("value") is not None else ""
            grid.add_row(name, _bar(done, total, wide), facts)
        return grid

    def _finished(self, wide: bool) -> Table:
        board = table(words.columns(self.state.metric, wide))
        for trial in reversed(self.state.finished):
            style = STATE_STYLES.get(trial["state"], "")
            board.add_row(
                *words.row(trial, wide), style="bold green" if trial.get("best") else style
            )
        return board


def _grid() -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="ellipsis", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="ellipsis", no_wrap=True)
    return grid


def _bar(done: int, total: int, wide: bool) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=max(total, 1), completed=done, width=24 if wide else 8)


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
