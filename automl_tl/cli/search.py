"""``automl-tl search`` and ``automl-tl resume``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli import studies
from automl_tl.cli.console import is_live, stdout
from automl_tl.cli.errors import INTERRUPTED, OK
from automl_tl.cli.plugin_files import Plugin
from automl_tl.cli.search_options import (
    Address,
    Artifacts,
    Device,
    Engine,
    Explain,
    GpusPerTrial,
    Log,
    StudyName,
    Target,
    Time,
    Trials,
    TrialTimeout,
    Weights,
    Workers,
    WorkersPerDevice,
)

if TYPE_CHECKING:
    from automl_tl.api import Study
    from automl_tl.cli.config import SearchOptions
    from automl_tl.cli.state import SearchProgress


def search(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="Folder of class folders, CSV, zip or tar of it, or a name such as digits.",
        ),
    ] = None,
    study: StudyName = None,
    trials: Trials = None,
    time: Time = None,
    target: Target = None,
    trial_timeout: TrialTimeout = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Search these, as 'torch/resnet*' [default: the recommended]"
        ),
    ] = None,
    weights: Weights = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Fix a parameter (dropout=0.2), give choices (batch_size=16,32) or a range "
            "(learning_rate=1e-4..1e-2).",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="TOML with the names of these options, which win, [[first]] trials and files in "
            "[plugins], whose code is run.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="accuracy, balanced_accuracy, macro_f1 or log_loss [default: accuracy]",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of everything [default: 0]")
    ] = None,
    workers: Workers = None,
    workers_per_device: WorkersPerDevice = None,
    device: Device = None,
    engine: Engine = None,
    address: Address = None,
    gpus_per_trial: GpusPerTrial = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database of the study; one that holds it already is joined [default: a file]",
        ),
    ] = None,
    artifacts: Artifacts = None,
    log: Log = None,
    plugin: Plugin = None,
    explain: Explain = False,
) -> int:
    """Search for the best way to classify the images in DATA.

    Finds the pretrained network, the depth to fine-tune, the head, the optimizer and the learning
    rate. Options repeat: --backbone A --backbone B. A terminal shows a live table; in a pipe, or
    with NO_COLOR=1, each finished trial is one plain line.
    """
    from automl_tl.cli.config import from_file, from_flags
    from automl_tl.plugins import use_files

    options = from_flags(
        backbone=backbone or (),
        weights=weights or (),
        set_=set_ or (),
        log=log or (),
        data=data,
        study=study,
        trials=trials,
        time=time,
        target=target,
        trial_timeout=trial_timeout,
        metric=metric,
        seed=seed,
        workers=workers,
        workers_per_device=workers_per_device,
        device=device,
        engine=engine,
        address=address,
        gpus_per_trial=gpus_per_trial,
        storage=storage,
        artifacts=artifacts,
    )
    if config is not None:
        options = options.over(from_file(Path(config)))
        use_files(options.plugins)
    return create_and_search(options, explain)


def resume(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of the study.")],
    trials: Trials = None,
    time: Time = None,
    target: Target = None,
    trial_timeout: TrialTimeout = None,
    workers: Workers = None,
    workers_per_device: WorkersPerDevice = None,
    device: Device = None,
    engine: Engine = None,
    address: Address = None,
    gpus_per_trial: GpusPerTrial = None,
    log: Log = None,
    plugin: Plugin = None,
    explain: Explain = False,
) -> int:
    """Continue a study that was stopped, or search it further.

    --log adds to what logs the study; trials that are finished already are not told of. A study
    that was searched with --plugin needs it again, because no recorded file is run by itself. A
    --trial-timeout that was given before counts on until another is given.
    """
    from automl_tl.api import Study
    from automl_tl.cli.config import from_flags

    options = from_flags(
        trials=trials,
        time=time,
        target=target,
        trial_timeout=trial_timeout,
        workers=workers,
        workers_per_device=workers_per_device,
        device=device,
        engine=engine,
        address=address,
        gpus_per_trial=gpus_per_trial,
        log=log or (),
    )
    began = monotonic()
    opened = Study.open(studies.existing(study))
    options = replace(options, metric=opened.metric)
    options.check()
    with watch(options.metric) as progress:
        return _run(opened, options, progress, began, explain)


def create_and_search(options: SearchOptions, explain: bool) -> int:
    """Create or join a study, search it, and print what came of it; returns the exit code."""
    from automl_tl.errors import UsageError

    if options.data is None:
        raise UsageError(
            "Expected DATA, the images to learn from: a folder with a sub-folder per class, or "
            "`automl-tl search digits` to try it."
        )
    options.check()
    _check_installed(options)
    directory = studies.directory(options.study or studies.default_name(options.data))

    from automl_tl.api import Study
    from automl_tl.units import parse_duration

    began = monotonic()
    seconds = float("inf") if options.time is None else parse_duration(options.time)
    with watch(options.metric) as progress:
        study = Study.create(
            directory,
            options.data,
            backbones=options.backbone,
            weights=options.weights,
            settings=options.set,
            metric=options.metric or "accuracy",
            seed=options.seed or 0,
            storage=options.storage,
            artifacts=options.artifacts,
            log=options.log,
            first=options.first,
            device=options.device or "auto",
            listener=progress,
            deadline=began + seconds,
        )
        return _run(study, options, progress, began, explain)


def _check_installed(options: SearchOptions) -> None:
    """Reject names of plugins before any image is read."""
    from automl_tl.plugins import get_plugins

    plugins = get_plugins()
    for pattern in (*options.backbone, *options.weights):
        plugins.match(pattern)
    for name in options.log:
        plugins.observer(name)
    plugins.engine(options.engine or "local", options.engine_options())


def _run(
    study: Study, options: SearchOptions, progress: SearchProgress, began: float, explain: bool
) -> int:
    from automl_tl.cli.explain import explaining
    from automl_tl.cli.show import print_result

    summary = study.search(
        trials=options.trials,
        time=options.time,
        target=options.target,
        trial_timeout=options.trial_timeout,
        workers=options.workers,
        workers_per_device=options.workers_per_device,
        device=options.device or "auto",
        engine=options.engine or "local",
        engine_options=options.engine_options(),
        log=options.log,
        listener=explaining(progress) if explain else progress,
        started=began,
    )
    progress.close()
    print_result(stdout(), summary)
    return INTERRUPTED if progress.state.interrupted else OK


def watch(metric: str | None) -> SearchProgress:
    """Return a live table on a terminal, plain lines elsewhere."""
    if is_live():
        from automl_tl.cli.live import LiveProgress

        return LiveProgress(metric or "accuracy")
    from automl_tl.cli.plain import PlainProgress

    return PlainProgress(metric or "accuracy")
