"""``automl-tl export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli import studies
from automl_tl.cli.console import printable

if TYPE_CHECKING:
    from automl_tl.deliver_ensemble import EnsembleReport


def export(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of the study.")],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write.",
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=(
                "Of a torch model: onnx, torch or safetensors; of a keras model: onnx, keras, "
                "savedmodel, litert or safetensors [default: from FILE's suffix, else onnx]"
            ),
        ),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Which trial [default: the best]")
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Average the kept trials that are better together than the best; ONNX only.",
        ),
    ] = False,
) -> None:
    """Write the best model to a file.

    The file is kept only when it is proved equal to the trained model.
    """
    from automl_tl.api import Study
    from automl_tl.errors import UsageError
    from automl_tl.units import format_bytes

    if trial is not None and trial < 0:
        raise UsageError(f"Expected --trial to be a trial's number, got {trial}.")
    opened = Study.open(studies.existing(study))
    if ensemble:
        if trial is not None or format_ not in (None, "onnx"):
            raise UsageError(
                "Expected --ensemble without --trial, and with no format but onnx; leave out "
                f"{'--format' if trial is None else '--trial'}."
            )
        made = opened.export_ensemble(output)
        report, reference = made.export, "the mean of its members"
    else:
        made = None
        report, reference = opened.export(output, format=format_, trial=trial), "the trained model"
    print(f"{printable(report.path)} ({report.format}, {format_bytes(report.bytes)})")
    print(
        f"  agrees with {reference} on {report.agreement} of {report.images} validation "
        f"images, run by {report.runtime}; logits differ by at most {report.difference:.1e}"
    )
    if made:
        _print_ensemble(made)
    print(f"{printable(report.card)} (model card)")


def _print_ensemble(made: EnsembleReport) -> None:
    from automl_tl.cli import words
    from automl_tl.cli.console import number

    metric = made.metric.replace("_", " ")
    print(
        f"  trials {words.members(made.members)}: validation {metric} {number(made.validation)}, "
        f"best trial {number(made.best)}; an ensemble of any of all {made.trials} trials would "
        f"reach {number(made.reachable)}"
    )
    if made.left_out:
        numbers = ", ".join(map(str, made.left_out))
        print(f"  left out, because members share their pixels with the best trial: {numbers}")
    if made.test:
        low, high = made.test["interval"]
        print(
            f"  test accuracy {number(made.test['accuracy'])}, 95 % interval {number(low)} to "
            f"{number(high)}, on {made.test['n']} images that the search never saw"
        )
