"""``automl-tl plugin new``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli.console import printable

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.scaffold import Scaffold


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the distribution and its folder, as my_net.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What it adds: backbone, backend, dataset, observer or engine.",
        ),
    ] = "backbone",
    framework: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a backbone: torch or keras [default: torch]"),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where the folder is made.")
    ] = ".",
) -> None:
    """Write a plugin that works as it stands: code, tests, README and packaging.

    Nothing that is there already is overwritten.
    """
    from automl_tl.scaffold import new_plugin

    made = new_plugin(name, kind, framework, output)
    print(f"{printable(made.path)}: the {made.kind} {made.key}, in {made.module}")
    for what, command in next_commands(made):
        print(f"{what + ':':<11} {printable(command)}")


def next_commands(made: Scaffold) -> list[tuple[str, str]]:
    """Return what a person may type next, and what it is for."""
    path = shlex.quote(_short(made.path))
    quick = "--set flip=false --trials 3"
    tiny = f"--backbone torch/tiny {quick}"
    use = {
        "backbone": f"search digits --backbone {made.key} {quick}",
        "backend": f"search digits --backbone {made.key}/perceptron {quick}",
        "dataset": f"search {made.key} --backbone torch/tiny --trials 3",
        "observer": f"search digits --log {made.key} {tiny}",
        "engine": f"search digits --engine {made.key} {tiny}",
    }
    return [
        ("Install it", f"pip install -e {path}"),
        ("Use it", f"automl-tl {use[made.kind]}"),
        ("Check it", f"automl-tl plugin check {made.plugin}"),
        ("Test it", f"pytest {path}"),
    ]


def _short(path: Path) -> str:
    """Return a path that pip takes for one, however short."""
    return str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}"
