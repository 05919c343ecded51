"""``automl-tl data check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_tl.cli.bars import counting, staging
from automl_tl.cli.console import cell, print_json, say, stdout, table
from automl_tl.cli.plugin_files import Plugin
from automl_tl.errors import DataError
from automl_tl.units import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

SPLITS = ("train", "validation", "test")

SHOWN_FILES = 50
SHOWN_GROUPS = 10

app = typer.Typer(help="Look at a data set before searching.")


@app.callback()
def _group() -> None:
    """Look at a data set before searching."""


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled images, as `automl-tl search` takes.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    plugin: Plugin = None,
) -> None:
    """Find broken files, duplicates and imbalance.

    Exits with 2 when a search of DATA would fail.
    """
    from automl_tl.cache.contents import default_root
    from automl_tl.data.check import check_data
    from automl_tl.data.sources import open_data
    from automl_tl.plugins import get_plugins

    with staging() as stage:
        index = open_data(data, default_root(), get_plugins().datasets, stage)
    with counting("checking images") as progress:
        facts = check_data(index, progress)
    if json:
        print_json(facts)
    else:
        print_check(stdout(), facts)
    if facts["problem"]:
        raise DataError(facts["problem"])


def print_check(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts of ``automl_tl.data.check.check_data`` for people."""
    console.print(f"{cell(facts['name'])}: {cell(facts['source'])}", style="bold", soft_wrap=True)
    say(console, _overview(facts))
    console.print(_classes(facts))
    broken = [f"{image['name']}: {image['reason']}" for image in facts["broken"]]
    _list(console, "Broken, left out", broken, SHOWN_FILES)
    conflicts = [
        ", ".join(f"{image['name']} ({image['class']})" for image in group)
        for group in facts["label_conflicts"]
    ]
    _list(console, "The same image in different classes, left out", conflicts, SHOWN_GROUPS)
    conflicting = {image["name"] for group in facts["label_conflicts"] for image in group}
    copies = [", ".join(group) for group in facts["duplicates"] if not {*group} & conflicting]
    _list(console, "Exact duplicates, kept in one split", copies, SHOWN_GROUPS)
    near = facts["near_duplicates"]
    pairs = [
        " and ".join(f"{n} ({s})" for n, s in zip(pair["names"], pair["splits"], strict=True))
        for pair in near["pairs"]
    ]
    more = near["count"] - len(pairs)
    _list(console, "Near-duplicates in different splits", pairs, SHOWN_GROUPS, more)
    for note in facts["notes"]:
        say(console, f"Note: {note}")
    for advice in facts["advice"]:
        if advice != facts["problem"]:
            say(console, f"Advice: {advice}", "yellow")


def _overview(facts: Mapping[str, Any]) -> str:
    formats = ", ".join(f"{count} {cell(name)}" for name, count in facts["formats"].items())
    text = f"{plural(facts['images'], 'image')}, {facts['good']} sound"
    text += f" ({formats})" if formats else ""
    if sides := facts["dimensions"]:
        width, height = sides["width"], sides["height"]
        text += (
            f"; {width['min']} to {width['max']} pixels wide (median {width['median']}), "
            f"{height['min']} to {height['max']} high (median {height['median']})"
        )
    if splits := facts["splits"]:
        text += "; splits of a search: " + ", ".join(f"{n} {name}" for name, n in splits.items())
    return text


def _classes(facts: Mapping[str, Any]) -> Table:
    given = [s for s in SPLITS if any(row["splits"].get(s) for row in facts["classes"])]
    headers = ["images", "sound", *given]
    board = table([("class", False), *((header, True) for header in headers)])
    for row in facts["classes"]:
        counts = [row["images"], row["good"], *(row["splits"].get(s, 0) for s in given)]
        board.add_row(cell(row["name"]), *map(str, counts))
    return board


def _list(
    console: Console, title: str, lines: Sequence[str], shown: int, unlisted: int = 0
) -> None:
    if not lines:
        return
    console.print(f"{title}: {len(lines) + unlisted}", style="bold", soft_wrap=True)
    for line in lines[:shown]:
        console.print(f"  {cell(line)}", soft_wrap=True)
    hidden = len(lines) - shown
    if hidden > 0:
        console.print(f"  ... and {hidden + unlisted} more; --json lists {len(lines)} of them")
