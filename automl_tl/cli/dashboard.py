"""``automl-tl dashboard``."""

from __future__ import annotations

from typing import Annotated

import typer

from automl_tl.cli import studies


def dashboard(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of the study.")],
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port.")] = 8080,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address, start no browser.")
    ] = False,
) -> None:
    """Show a study in the browser with optuna-dashboard, also while it is searched.

    It answers this machine only, and changes nothing. Ctrl-C ends it.
    """
    import webbrowser
    from contextlib import suppress

    from automl_tl.dashboard import Dashboard
    from automl_tl.study import StudyDirectory

    directory = StudyDirectory.open(studies.existing(study).absolute())
    served = Dashboard(directory, directory.data(), port)
    print(f"{served.url} (Ctrl-C ends it)", flush=True)
    if not no_open:
        webbrowser.open(served.url)
    with suppress(KeyboardInterrupt):
        served.serve()
