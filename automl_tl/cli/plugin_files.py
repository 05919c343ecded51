"""The option ``--plugin FILE``, which every command has that may need what a plugin provides."""

from __future__ import annotations

from typing import Annotated

import typer


def _use(files: list[str] | None) -> list[str] | None:
    if files:
        from automl_tl.plugins import use_files

        use_files(files)
    return files


Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_use,
        help="Also load this Python file as a plugin: its code is run.",
    ),
]
