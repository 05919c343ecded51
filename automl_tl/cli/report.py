"""``automl-tl report``."""

from __future__ import annotations

from typing import Annotated

import typer

from automl_tl.cli import studies
from automl_tl.cli.console import printable
from automl_tl.cli.plugin_files import Plugin


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of the study.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page to write [default: report.html in the study]",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Write a study's report: one HTML file that needs no network.

    What won and how far to trust it, the search, learning curves, mistakes, the data, the time.
    """
    from automl_tl.api import Study
    from automl_tl.units import format_bytes

    path = Study.open(studies.existing(study)).report(output)
    print(f"{printable(path)} ({format_bytes(path.stat().st_size)})")
