"""``automl-tl worker``."""

from __future__ import annotations

from typing import Annotated

import typer

from automl_tl.cli import studies
from automl_tl.cli.plugin_files import Plugin
from automl_tl.cli.search import create_and_search
from automl_tl.cli.search_options import (
    Artifacts,
    Device,
    Log,
    StudyName,
    Target,
    Time,
    Trials,
    TrialTimeout,
    Weights,
)


def worker(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="This machine's copy of the study's images.")
    ],
    storage: Annotated[str, typer.Option(metavar="URL", help="Database of the study.")],
    study: StudyName = None,
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="How long to wait for the study to be begun.")
    ] = "10m",
    trials: Trials = None,
    time: Time = None,
    target: Target = None,
    trial_timeout: TrialTimeout = None,
    weights: Weights = None,
    device: Device = None,
    artifacts: Artifacts = None,
    log: Log = None,
    plugin: Plugin = None,
) -> int:
    """Be one worker of a study that `search --storage` began, for a scheduler to start.

    Joins the study once it is there and runs trials on one device, until the bounds given here or
    else those that the study was begun with. SIGTERM ends it cleanly.
    """
    from automl_tl.cli.config import duration, from_flags
    from automl_tl.join import await_study

    options = from_flags(
        weights=weights or (),
        log=log or (),
        data=data,
        study=study or studies.default_name(data),
        trials=trials,
        time=time,
        target=target,
        trial_timeout=trial_timeout,
        workers=1,
        device=device,
        storage=storage,
        artifacts=artifacts,
    )
    options.check()
    await_study(studies.directory(str(options.study)).absolute(), storage, duration(wait, "--wait"))
    return create_and_search(options, explain=False)
