"""Results as tables: Markdown for the documentation, Rich for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from benchmarks.results import Track

SUMMARY = ("track", "figure", "measured", "lowest to highest", "at least", "aim", "counts")


def markdown(results: Mapping[str, Any], tracks: Mapping[str, Track]) -> str:
    """Return a page of tables; dashes stand for what was not measured.

    Args:
        results: As ``results.json`` has it; may be empty.
        tracks: All tracks, by key.
    """
    parts = []
    if machine := results.get("machine"):
        parts.append(f"{_machine(results, machine)}\n")
    rows = list(summary(results, tracks))
    parts.append(_markdown_table(SUMMARY, rows))
    for key, found in results.get("tracks", {}).items():
        parts.append(f"\n### {key}: {found['title']}\n")
        if "error" in found:
            parts.append(f"Not measured: {found['error']}\n")
            continue
        for table in found["tables"]:
            cells = [[figure(cell) for cell in row] for row in table["rows"]]
            parts.append(f"{table['title']}:\n\n{_markdown_table(table['columns'], cells)}")
        parts.append("\n".join(found["notes"]) + "\n")
    return "\n".join(parts)


def summary(results: Mapping[str, Any], tracks: Mapping[str, Track]) -> Iterator[list[str]]:
    """Yield a row for every figure that has a target, measured or not."""
    for key, track in tracks.items():
        found = results.get("tracks", {}).get(key, {})
        measures = {one["what"]: one for one in found.get("measures", ())}
        for target in track.targets:
            one = measures.get(target.what, {})
            unit = f" {target.unit}" if target.unit else ""
            value = one.get("value")
            low, high = one.get("low"), one.get("high")
            sign = ">=" if target.better == "more" else "<="
            yield [
                key,
                target.what,
                "-" if value is None else f"{figure(value)}{unit}",
                "-" if low is None else f"{figure(low)} to {figure(high)}",
                f"{sign} {figure(target.at_least)}{unit}",
                "-" if target.aim is None else f"{sign} {figure(target.aim)}{unit}",
                figure(one.get("counts")),
            ]


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print one track's tables and notes."""
    for table in found["tables"]:
        rows = [[figure(cell) for cell in row] for row in table["rows"]]
        console.print(_rich_table(table["title"], table["columns"], rows))
    for note in found["notes"]:
        console.print(note, style="dim", markup=False)


def show_summary(console: Console, results: Mapping[str, Any], tracks: Mapping[str, Track]) -> None:
    """Print the figures beside their targets."""
    rows = [row for row in summary(results, tracks) if row[0] in results["tracks"]]
    console.print(_rich_table("Against the targets", SUMMARY, rows))


def figure(value: Any) -> str:
    """Return a cell: three significant digits, ``-`` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _machine(results: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items() if v)
    return (
        f"{machine['when'][:10]}, commit {machine['commit']}, size {results['size']}: "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, load "
        f"{machine['load'][0]} at the start; Python {machine['python']}, {packages}."
    )


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(title=escape(title), title_justify="left", box=box.SIMPLE)
    for number, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
