"""Progress bars of long work, alike wherever they are drawn: name, bar, amount, rate, estimate."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from automl_tl.cli.console import can_redraw, cell, stderr
from automl_tl.cli.state import Stage
from automl_tl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType
    from rich.table import Table

    Tell = Callable[..., None]

WIDE = 100
"""Columns from which on a rate has room, too."""


def grid() -> Table:
    """Return an empty table for rows of a name, a bar and its facts; names may come in two."""
    from rich.table import Table

    result = Table.grid(padding=(0, 2))
    for _ in range(4):
        result.add_column(overflow="ellipsis", no_wrap=True)
    return result


def bar(done: float, total: float, wide: bool) -> RenderableType:
    """Return a bar; one that only shows that something happens where ``total`` is 0."""
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=total or None, completed=done, width=width(wide))


def width(wide: bool) -> int:
    """Return the columns of a bar."""
    return 24 if wide else 8


def facts(stage: Stage, wide: bool, now: float) -> str:
    """Return the amount done with its rate and what is left, as far as they are known."""
    if stage.unmeasured:
        return format_duration(now - stage.started)
    parts = [f"{amount(stage.done, stage.unit)}/{amount(stage.total, stage.unit)}"]
    if stage.rate and wide:
        parts.append(f"{amount(stage.rate, stage.unit)}/s")
    if stage.remaining is not None:
        parts.append(f"{format_duration(stage.remaining)} left")
    return "  ".join(parts)


def amount(number: float, unit: str) -> str:
    """Return a number of images, or a size."""
    return format_bytes(number) if unit == "bytes" else f"{number:.0f}"


@contextmanager
def staging() -> Iterator[Tell]:
    """Show a bar for the work at hand on a terminal while the context lasts.

    Yields:
        What to call with a name, how much of it is done and of how much, and optionally the unit
        ``bytes``; from any thread. Another name is other work; 0 of 0 has no measure.
    """
    if not can_redraw():
        yield lambda *_: None
        return
    from rich.live import Live

    lock = threading.Lock()
    current: list[Stage] = []
    console = stderr()

    def tell(what: str, done: int, total: int, unit: str = "images") -> None:
        with lock:
            if not current or current[0].what != what or done < current[0].done:
                current[:] = [Stage(what, done, total, time.monotonic(), unit)]
            else:
                current[0].advance(done, total, time.monotonic())

    def draw() -> RenderableType:
        rows, wide = grid(), console.width >= WIDE
        with lock:
            for stage in current:
                measure = (0, 0) if stage.unmeasured else (stage.done, stage.total)
                text = facts(stage, wide, time.monotonic())
                rows.add_row(cell(stage.what), bar(*measure, wide), text)
        return rows

    with Live(console=console, get_renderable=draw, refresh_per_second=8, transient=True):
        yield tell


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for one thing on a terminal while the context lasts.

    Yields:
        What to call with the number of items done and of all items.
    """
    with staging() as tell:
        yield lambda done, total: tell(what, done, total)
