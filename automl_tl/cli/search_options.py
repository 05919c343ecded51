"""The options that `search`, `resume` and `worker` share."""

from __future__ import annotations

from typing import Annotated

import typer

StudyName = Annotated[
    str | None,
    typer.Option(
        "--study", metavar="STUDY", help="Name (below studies/) or path [default: from DATA]"
    ),
]
Trials = Annotated[int | None, typer.Option(metavar="N", help="Stop at N finished trials in all.")]
Time = Annotated[
    str | None,
    typer.Option("--time", metavar="TIME", help="Stop after 90s, 30m or 1h30m, tests included."),
]
Target = Annotated[
    float | None, typer.Option(metavar="VALUE", help="Stop when a trial reaches this value.")
]
TrialTimeout = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="End a trial after 5m, with the model it has by then."),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Worker processes [default: one a device]")
]
WorkersPerDevice = Annotated[
    int | None, typer.Option(metavar="N", help="Worker processes that share each device.")
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="cpu, mps, cuda:0 [default: auto]")
]
Engine = Annotated[
    str | None, typer.Option(metavar="NAME", help="What starts workers [default: local]")
]
Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Cluster that --engine ray connects to.")
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(metavar="X", help="GPUs a worker with --engine ray, 0.25 for a quarter of one."),
]
Log = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Log every epoch and trial: tensorboard, mlflow."),
]
Artifacts = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Folder or s3://BUCKET/PATH for the trials' files, for other machines of the study.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=none|PATH|URL", help="Start a backbone from other weights."),
]

Explain = Annotated[
    bool, typer.Option("--explain", help="Say for each trial what is stored where, and why.")
]
