"""The commands. Every import that costs time waits until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from automl_tl.cli import (
    dashboard,
    data,
    export,
    features,
    inventory,
    plugin,
    predict,
    report,
    search,
    show,
    worker,
)

app = typer.Typer(
    name="automl-tl",
    help="Search for the best transfer-learning setup for image classification.",
    epilog="Try it: automl-tl search digits",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"automl-tl {version('automl-tl')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    # Taken out of the arguments in cli.errors, so that it works in any position.
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Search for the best transfer-learning setup for image classification."""


app.command()(search.search)
app.command()(search.resume)
app.command()(worker.worker)
app.command()(show.show)
app.command()(report.report)
app.command()(dashboard.dashboard)
app.command()(export.export)
app.command()(predict.predict)
app.command()(predict.evaluate)
app.command()(features.features)
app.add_typer(data.app, name="data")
app.command()(inventory.backbones)
app.command()(inventory.doctor)
app.command()(inventory.plugins)
app.add_typer(plugin.app, name="plugin")
app.add_typer(inventory.cache, name="cache")
