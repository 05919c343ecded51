"""Where output goes: facts to standard output, progress and errors to standard error.

No console here reads markup, so a class called ``[red]`` is printed as it is; control characters
in names are made visible, so that a file name cannot drive the terminal.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.table import Table


FILE_WIDTH = 120
"""Columns of what goes to a file or a pipe; a terminal has its own width."""
NARROWEST = 40
"""Columns that tables and sentences are made for at least; a narrower terminal breaks the lines."""


def stdout() -> Console:
    """Return a console for facts."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return a console for progress and warnings."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    console.width = max(console.width, NARROWEST)
    return console


def say(console: Console, text: object, style: str = "") -> None:
    """Print sentences: broken between words on a terminal, as they are in a file or a pipe."""
    wrapped = wrap(printable(text), console.width) if console.is_terminal else printable(text)
    console.print(wrapped, style=style, soft_wrap=True)


def write(text: object, stream: IO[str]) -> None:
    """Do the same as ``say`` without a console."""
    plain = printable(text)
    print(wrap(plain, _columns()) if stream.isatty() else plain, file=stream, flush=True)


def wrap(text: str, width: int) -> str:
    """Break lines between words; a word that is longer than a line stays whole, to be copied."""
    import textwrap

    def lines(line: str) -> str:
        return textwrap.fill(
            line,
            max(width, 1),
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )

    return "\n".join(map(lines, text.split("\n")))


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def is_live() -> bool:
    """Whether a search shows a live table: on a terminal, unless ``NO_COLOR`` asks for lines."""
    return can_redraw() and not os.environ.get("NO_COLOR")


def can_redraw() -> bool:
    """Whether both streams are terminals that can redraw."""
    return (
        sys.stdout.isatty()
        and sys.stderr.isatty()
        and os.environ.get("TERM", "") not in ("dumb", "unknown")
    )


def printable(text: object) -> str:
    """Return text with its control characters escaped; line breaks stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "replace").decode()
        for c in str(text)
    )


def cell(text: object) -> str:
    """Return text for one cell of a table, on one line; nothing becomes a dash."""
    return "-" if text is None else printable(text).replace("\n", "\\n")


def print_json(facts: Any) -> None:
    """Print facts as JSON on standard output; NaN and infinity become null."""
    print(json_text(facts))


def json_text(facts: Any) -> str:
    """Return what ``print_json`` prints."""
    return json.dumps(_plain(facts), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return _encodable(value) if isinstance(value, str) else value
    return _encodable(str(value))


def _encodable(text: str) -> str:
    """Make the bytes of an undecodable file name visible instead of failing to print."""
    return text.encode("utf-8", "backslashreplace").decode()


def table(columns: Iterable[tuple[str, bool]]) -> Table:
    """Return an empty table.

    Args:
        columns: Header of each column, and whether it holds numbers.
    """
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header, numeric in columns:
        result.add_column(
            header,
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="ellipsis" if numeric else "fold",
        )
    return result


def number(value: Any, digits: int = 4) -> str:
    """Return a metric's value, or a dash when there is none."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}"


def parameters(count: Any) -> str:
    """Return a number of parameters: ``3.5 M``, ``74 k``."""
    if not isinstance(count, (int, float)):
        return "-"
    if count < 1e6:
        return f"{count / 1e3:.0f} k"
    return f"{count / 1e6:.1f} M"
