"""``automl-tl plugin``: for people who write plugins."""

from __future__ import annotations

import typer

from automl_tl.cli import plugin_new

app = typer.Typer(help="Write a plugin, or check one.")


@app.callback()
def _group() -> None:
    """Write a plugin, or check one."""


app.command("new")(plugin_new.new)
