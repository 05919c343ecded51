"""``automl-tl show``, and the result that a search ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_tl.cli import studies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

SHOWN_TRIALS = 20


def show(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path of the study.")],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print a study's trials and its best figures."""
    from automl_tl.api import Study
    from automl_tl.cli.console import print_json, stdout

    summary = Study.open(studies.existing(study)).summary()
    if json:
        print_json(summary)
        return
    console = stdout()
    print_leaderboard(console, summary)
    print_best(console, summary)


def print_leaderboard(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what a study is and its trials, the best first."""
    from automl_tl.cli import words
    from automl_tl.cli.console import cell, say, table
    from automl_tl.units import plural

    lost = {"running": "interrupted"} if summary["interrupted"] else {}
    counts = ", ".join(f"{n} {lost.get(s, s)}" for s, n in summary["state"].items() if n)
    data = summary["data"]
    title = f"study {cell(summary['study'])} in {cell(summary['directory'])}"
    console.print(title, style="bold", soft_wrap=True)
    broken = len(data["broken"])
    say(
        console,
        f"{plural(data['images'], 'image')}, {plural(len(summary['classes']), 'class')}"
        + (f", {plural(broken, 'broken image')} left out" if broken else "")
        + f"; trials: {counts or 'none yet'}",
    )
    if lost:
        again = f"automl-tl resume {_again(summary)}"
        say(console, f"Its search was interrupted; `{again}` goes on.", "yellow")
    trials = sorted(summary["trials"], key=_order(summary["direction"]))
    if not trials:
        return
    wide = console.width >= 100
    board = table(words.columns(summary["metric"], wide))
    for trial in trials[:SHOWN_TRIALS]:
        state = lost.get(trial["state"], trial["state"])
        board.add_row(*words.row({**trial, "state": state}, wide))
    console.print(board)
    if (more := len(trials) - SHOWN_TRIALS) > 0:
        say(console, f"{plural(more, 'more trial')}; --json has them all.")
    for sentence in [s for trial in trials[:SHOWN_TRIALS] if (s := words.stopped(trial))]:
        say(console, sentence)
    reasons = {str(t["reason"]): t["number"] for t in trials if t["state"] == "failed"}
    for reason, trial_number in list(reasons.items())[:5]:
        say(console, f"trial {trial_number} failed: {cell(reason)}", "red")


def print_best(console: Console, summary: Mapping[str, Any]) -> None:
    """Print the best trial, its figures and what they are worth, and what to do next."""
    from automl_tl.cli import words
    from automl_tl.cli.console import cell, number, say, table
    from automl_tl.units import plural

    best = summary["best"]
    if best is None:
        console.print("No trial is complete yet, so there is no model.")
        return
    trial = next(t for t in summary["trials"] if t["number"] == best["trial"])
    say(console, f"best: trial {best['trial']}, {words.recipe(trial)}", "bold green")
    validation, test = best["validation"], best.get("test")
    splits = ["validation", "test"] if test else ["validation"]
    figures = table([("", False), *((split, True) for split in splits)])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        row = [number(split.get(name)) for split in (validation, test) if split]
        figures.add_row(name.replace("_", " "), *row)
    figures.add_row("images", *(cell(split.get("n")) for split in (validation, test) if split))
    console.print(figures)
    if test and test.get("interval"):
        low, high = test["interval"]
        say(
            console,
            f"Test accuracy {number(test['accuracy'])}, 95 % interval {number(low)} to "
            f"{number(high)}, on {plural(test['n'], 'image')} that the search never saw.",
        )
    optimism = best["optimism"]
    say(console, optimism["sentence"], "yellow" if optimism["warn"] else "")
    for warning in summary["warnings"]:
        if warning != optimism["sentence"]:
            say(console, f"Warning: {warning}", "yellow")
    if summary["ensemble"]:
        say(console, _ensemble(summary))
    say(console, _reuse(summary["reuse"]))


def _ensemble(summary: Mapping[str, Any]) -> str:
    from automl_tl.cli import words
    from automl_tl.cli.console import number

    found = summary["ensemble"]
    return (
        f"An ensemble of trials {words.members(found['members'])} reaches "
        f"{summary['metric'].replace('_', ' ')} {number(found['value'])} on validation (best trial "
        f"{number(summary['best']['value'])}): automl-tl export {_again(summary)} --ensemble "
        "-o ensemble.onnx"
    )


def _reuse(reuse: Mapping[str, Any]) -> str:
    from automl_tl.units import format_duration, plural

    return (
        f"{plural(reuse['decoded'], 'image')} decoded at the start, "
        f"{plural(reuse['prefix_passes'], 'pass')} of frozen layers over "
        f"{plural(reuse['prefix_images'], 'image')}; stored arrays saved "
        f"{format_duration(reuse['seconds_saved'])}."
    )


def print_result(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what a search found, and the commands that a person may want next."""
    print_best(console, summary)
    name, again = _reference(summary), _again(summary)
    if summary["best"] is not None:
        console.print(f"Export the model: automl-tl export {again} -o model.onnx", soft_wrap=True)
    console.print(f"See all trials:   automl-tl show {name}", soft_wrap=True)
    console.print(f"Search further:   automl-tl resume {again}", soft_wrap=True)


def _reference(summary: Mapping[str, Any]) -> str:
    from automl_tl.study import reference

    return reference(Path(summary["directory"]))


def _again(summary: Mapping[str, Any]) -> str:
    """Return what names a study to a command that runs its networks."""
    from automl_tl.plugin_files import flags

    return _reference(summary) + flags()


def _order(direction: str) -> Any:
    """Complete trials first, by value; then pruned, failed and running ones, newest first."""
    sign = -1 if direction == "maximize" else 1
    states = {"complete": 0, "running": 1, "pruned": 2, "failed": 3}

    def key(trial: Mapping[str, Any]) -> tuple[int, float, int]:
        complete = trial["state"] == "complete" and trial.get("value") is not None
        rank = states.get(trial["state"], 4)
        return (rank, sign * trial["value"] if complete else 0.0, trial["number"])

    return key
