"""``automl-tl predict`` and ``automl-tl evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from automl_tl.cli.bars import counting, staging
from automl_tl.cli.console import (
    cell,
    json_text,
    number,
    print_json,
    printable,
    say,
    sheet_cell,
    stdout,
    table,
)
from automl_tl.cli.errors import OK, WRONG_INPUT
from automl_tl.cli.features import own_weights
from automl_tl.cli.plugin_files import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

    from automl_tl.predict import Prediction, Predictor
    from automl_tl.types import Split


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A file that export wrote, or a pretrained network as keras/ResNet50.",
        ),
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.")
    ],
    top: Annotated[int, typer.Option(metavar="N", help="Classes to print per image.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[
        bool,
        typer.Option("--csv", help="Print CSV that a spreadsheet may open: path,rank,class,..."),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="Weights of a pretrained network and its classifier."
        ),
    ] = None,
    plugin: Plugin = None,
) -> int:
    """Classify images with an exported model, or with a pretrained network into ImageNet's classes.

    A pretrained network keeps its original classifier and knows the 1000 classes of ImageNet.
    """
    from automl_tl.errors import UsageError

    if top < 1:
        raise UsageError(f"Expected --top to be at least 1, got {top}.")
    if json and csv:
        raise UsageError("Expected --json or --csv, got both; choose one.")
    write = _write_json if json else _write_csv if csv else _write_text
    with _open(model, weights) as predictor:
        return OK if write(predictor.classify(images, top=top)) else WRONG_INPUT


def _open(model: str, weights: str | None) -> Predictor:
    from automl_tl.errors import UsageError
    from automl_tl.predict import open_model

    if "/" in model:
        from automl_tl.pretrained import is_key, open_classifier

        if is_key(model):
            with staging() as stage:
                return open_classifier(model, own_weights(weights, model), stage=stage)
    if weights is not None:
        raise UsageError(
            f"Expected --weights with a pretrained network as keras/ResNet50, got {model}, whose "
            "weights lie in the file; leave --weights out."
        )
    return open_model(Path(model))


def evaluate(
    models_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [MODEL] DATA",
            help=(
                "One or two files that export wrote, then labelled images, as `automl-tl search` "
                "takes."
            ),
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this split of DATA: train, validation or test."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write everything as JSON to a file."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Measure an exported model on labelled images, or compare two."""
    from automl_tl.cache.contents import default_root
    from automl_tl.compare_models import compare_models
    from automl_tl.errors import UsageError
    from automl_tl.evaluate import evaluate as run
    from automl_tl.plugins import get_plugins

    if len(models_and_data) not in (2, 3):
        raise UsageError(
            "Expected one or two models and then DATA, got "
            f"{' '.join(models_and_data)}; try `automl-tl evaluate MODEL DATA`."
        )
    if split not in (None, "train", "validation", "test"):
        raise UsageError(f"Expected --split train, validation or test, got {split!r}.")
    destination = _writable(output)
    with counting("classifying images") as progress:
        facts = (run if len(models_and_data) == 2 else compare_models)(
            *models_and_data,
            cache_directory=default_root(),
            datasets=get_plugins().datasets,
            split=cast("Split | None", split),
            progress=progress,
        )
    if destination:
        _save(facts, destination)
    if json:
        print_json(facts)
    elif len(models_and_data) == 2:
        print_evaluation(stdout(), facts)
    else:
        print_comparison(stdout(), facts)


def _writable(output: str | None) -> Path | None:
    """Return where to write, before any image is classified."""
    from automl_tl.errors import UsageError

    if output is None:
        return None
    path = Path(output).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"Expected a file to write in an existing folder, got --output {output}; choose "
            "another."
        )
    return path


def _save(facts: Mapping[str, Any], path: Path) -> None:
    from automl_tl.errors import UsageError
    from automl_tl.files import write_text

    try:
        write_text(path, json_text(facts) + "\n")
    except OSError as error:
        raise UsageError(
            f"Expected to write {path}, but: {error.strerror or error}; choose another place."
        ) from None


def print_evaluation(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the figures of ``automl_tl.evaluate.evaluate`` for people."""
    low, high = facts["interval"]
    console.print(
        f"accuracy {number(facts['accuracy'])}, 95 % interval {number(low)} to {number(high)}, "
        f"on {facts['n']} images",
        style="bold",
    )
    others = ("balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
    console.print(", ".join(f"{name.replace('_', ' ')} {number(facts[name])}" for name in others))
    headers = ("precision", "recall", "f1", "support")
    classes = table([("class", False), *((header, True) for header in headers)])
    for row in facts["classes"]:
        shares = (number(row[header], 3) for header in headers[:3])
        classes.add_row(cell(row["name"]), *shares, cell(row["support"]))
    console.print(classes)
    _print_left_out(console, facts["broken"])
    for note in facts["notes"]:
        console.print(f"Note: {printable(note)}", style="yellow", soft_wrap=True)


def print_comparison(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what ``automl_tl.compare_models.compare_models`` found for people."""
    models = facts["models"]
    paths = [Path(m["model"]) for m in models]
    short = [path.name for path in paths] if paths[0].name != paths[1].name else paths
    names = [f"{letter}: {cell(path)}" for letter, path in zip("AB", short, strict=True)]
    rows = table([("", False), *((name, True) for name in names)])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error"):
        rows.add_row(name.replace("_", " "), *(number(m[name]) for m in models))
        if name == "accuracy":
            ranges = (" to ".join(number(end) for end in m["interval"]) for m in models)
            rows.add_row("  95 % interval", *ranges)
    rows.add_row("images", *(cell(m["n"]) for m in models))
    console.print(rows)
    say(console, facts["sentence"], "bold")
    _print_left_out(console, models[0]["broken"])
    for note in dict.fromkeys(note for m in models for note in m["notes"]):
        who = [letter for letter, m in zip("AB", models, strict=True) if note in m["notes"]]
        say(console, f"Note on {' and '.join(who)}: {note}", "yellow")


def _print_left_out(console: Console, broken: Iterable[Mapping[str, Any]]) -> None:
    for image in broken:
        text = f"left out: {cell(image['name'])}: {cell(image['reason'])}"
        console.print(text, style="yellow", soft_wrap=True)


def _write_text(predictions: Iterable[Prediction]) -> int:
    """Print an image a line; returns how many images were classified."""
    good = 0
    for prediction in predictions:
        if prediction.error is not None:
            _complain(prediction)
            continue
        good += 1
        ranked = ", ".join(f"{cell(name)} {share:.1%}" for name, share in prediction.ranked)
        print(f"{cell(prediction.path)}: {ranked}")
    return good


def _write_csv(predictions: Iterable[Prediction]) -> int:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "rank", "class", "probability", "error"])
    good = 0
    for prediction in predictions:
        path, error = sheet_cell(prediction.path), sheet_cell(prediction.error)
        if prediction.error is not None:
            writer.writerow([path, "", "", "", error])
            continue
        good += 1
        for rank, (name, share) in enumerate(prediction.ranked, 1):
            writer.writerow([path, rank, sheet_cell(name), f"{share:.6f}", error])
    return good


def _write_json(predictions: Iterable[Prediction]) -> int:
    found = list(predictions)
    print_json(
        [
            {
                "path": str(prediction.path),
                "error": prediction.error,
                "classes": [{"class": c, "probability": p} for c, p in prediction.ranked],
            }
            for prediction in found
        ]
    )
    return sum(prediction.error is None for prediction in found)


def _complain(prediction: Prediction) -> None:
    print(f"Error: {cell(prediction.path)}: {cell(prediction.error)}.", file=sys.stderr)
