"""``automl-tl export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_tl.cli import studies
from automl_tl.cli.console import printable
from automl_tl.cli.plugin_files import Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help=(
                "Divide the logits by a temperature, fitted on the validation images, so that "
                "the probabilities say how often the model is right."
            ),
        ),
    ] = False,
    plugin: Plugin = None,
) -> None:
    """Write the best model to a file.

    The file is kept only when it is proved equal to the trained model.
    """
    from automl_tl.api import Study
    from automl_tl.cli.bars import staging
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
        with staging() as stage:
            made = opened.export_ensemble(output, calibrate, stage)
        report, reference = made.export, "the mean of its members"
    else:
        made = None
        with staging() as stage:
            report = opened.export(output, format_, trial, calibrate, stage)
        reference = "the trained model"
    print(f"{printable(report.path)} ({report.format}, {format_bytes(report.bytes)})")
    if report.calibration:
        reference += ", calibrated,"
    print(
        f"  agrees with {reference} on {report.agreement} of {report.images} validation "
        f"images, run by {report.runtime}; logits differ by at most {report.difference:.1e}"
    )
    if report.calibration:
        _print_calibration(report.calibration)
    if made:
        _print_ensemble(made)
    print(f"{printable(report.card)} (model card)")


def _print_calibration(done: Mapping[str, Any]) -> None:
    from automl_tl.cli.console import number

    splits = done["splits"]
    print(
        f"  logits are divided by the temperature {number(done['temperature'])}, fitted on the "
        f"{splits[done['fitted_on']]['n']} {done['fitted_on']} images"
    )
    for split, row in splits.items():
        error, loss = row["ece"], row["log_loss"]
        print(
            f"    {split}: calibration error {number(error['before'])} before and "
            f"{number(error['after'])} after, log loss {number(loss['before'])} and "
            f"{number(loss['after'])}"
        )


def _print_ensemble(made: EnsembleReport) -> None:
    from automl_tl.cli import words
    from automl_tl.cli.console import number

    metric = made.metric.replace("_", " ")
    print(
        f"  trials {words.members(made.members)}: validation {metric} {number(made.validation)}, "
        f"best trial {number(made.best)}; an ensemble of any of the best {made.trials} trials "
        f"would reach {number(made.reachable)}"
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
