"""``automl-tl plugin``: for people who write plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli import plugin_new
from automl_tl.cli.bars import staging
from automl_tl.cli.console import cell, print_json, printable, say, stderr, stdout, table
from automl_tl.cli.plugin_files import Plugin
from automl_tl.units import plural

if TYPE_CHECKING:
    from rich.console import Console

    from automl_tl.testing.kit import Report

WRONG = 1
"""Exit code when a plugin is wrong."""

app = typer.Typer(help="Write a plugin, or check one.")


@app.callback()
def _group() -> None:
    """Write a plugin, or check one."""


app.command("new")(plugin_new.new)


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The plugin, as `automl-tl plugins` lists it.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="GLOB", help="Which of its backbones to build and train.")
    ] = "*",
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    plugin: Plugin = None,
) -> None:
    """Check that a plugin and all that it provides keep their promises.

    Everything runs on the CPU, with random weights, without a network. Exits with 1 when something
    is wrong.
    """
    import tempfile
    from dataclasses import asdict
    from pathlib import Path

    from automl_tl.testing.kit import check_plugin

    with tempfile.NamedTemporaryFile(prefix="automl-tl-", suffix=".log", delete=False) as file:
        log = Path(file.name)
    kept = None
    try:
        with staging() as stage:
            report = check_plugin(name, backbone, stage, log=log)
        if not report.passed and log.stat().st_size:
            kept = log
    finally:
        if kept is None:
            log.unlink()
    if json:
        findings = [asdict(finding) for finding in report.findings]
        facts = {"plugin": report.plugin, "distribution": report.distribution}
        print_json({**facts, "passed": report.passed, "log": kept, "findings": findings})
    else:
        print_report(stdout(), report)
    if kept:
        say(stderr(), f"What the plugin and its framework printed is in {kept}.")
    if not report.passed:
        raise typer.Exit(WRONG)


def print_report(console: Console, report: Report) -> None:
    """Print what the kit found, for people."""
    columns = ("", "subject", "check", "expected", "received")
    board = table([(column, False) for column in columns])
    for one in report.findings:
        texts = (one.subject, one.check, one.expected, one.received)
        mark, style = ("ok", None) if one.passed else ("WRONG", "red")
        board.add_row(mark, *map(cell, texts), style=style)
    console.print(board)
    wrong = [finding for finding in report.findings if not finding.passed]
    for finding in wrong:
        say(console, f"Wrong: {printable(finding)}", "red")
    made = f"{report.plugin} ({report.distribution}): {plural(len(report.findings), 'finding')}"
    state = f"{len(wrong)} wrong" if wrong else "nothing wrong"
    say(console, f"{made}, {state}.", "red" if wrong else "green")
