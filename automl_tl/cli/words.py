"""Events and trials in words, the same in the live table, in plain lines and in ``show``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from automl_tl.cli.console import cell, number
from automl_tl.plugin_files import flags
from automl_tl.study import reference
from automl_tl.units import format_duration, plural

Facts = Mapping[str, Any]


def depth(trial: Facts) -> str:
    """Return where fine-tuning starts: ``102/154``, ``all``, or ``frozen`` for the head only."""
    at, layers = trial.get("fine_tune_at"), trial.get("layers")
    if at is None or layers is None:
        return "-"
    if at >= layers:
        return "frozen"
    return "all" if at == 0 else f"{at}/{layers}"


def place(trial: Facts) -> str:
    """Return ``depth`` as it reads in a sentence."""
    where = depth(trial)
    return {"frozen": "frozen", "all": "fine-tune all"}.get(where, f"from {where}")


def head(trial: Facts) -> str:
    """Return the hidden layers of a head: ``linear``, ``256``, ``256x2`` or ``256-64``."""
    layers, units = parameter(trial, "head_layers"), parameter(trial, "head_units")
    if isinstance(units, (list, tuple)):
        if len(units) > 1 and len(set(units)) == 1:
            return f"{units[0]}x{len(units)}"
        return "-".join(str(width) for width in units) or "linear"
    if layers is None:
        return "-"
    if layers == 0:
        return "linear"
    return cell(units) if layers == 1 else f"{cell(units)}x{layers}"


def optimizer(trial: Facts) -> str:
    """Return the name of the optimizer: ``adam``, or ``adam then sgd`` where phases differ."""
    first, second = parameter(trial, "optimizer"), parameter(trial, "fine_tune_optimizer")
    return cell(first) if second in (None, "same") else f"{cell(first)} then {cell(second)}"


def learning_rate(trial: Facts) -> str:
    """Return the learning rate of the head: ``3.2e-04``."""
    value = parameter(trial, "learning_rate")
    return f"{value:.1e}" if isinstance(value, (int, float)) else "-"


def parameter(trial: Facts, name: str) -> Any:
    """Return one of a trial's parameters; one narrowed by a plugin is called ``NAME@BACKBONE``."""
    params = trial.get("params") or {}
    return params.get(name, params.get(f"{name}@{trial.get('backbone')}"))


def epochs(trial: Facts) -> str:
    """Return how many epochs a trial ran: ``12``, or ``5/12`` when it ended early."""
    done, planned = trial.get("epochs"), trial.get("planned_epochs")
    if done is None or not planned or done >= planned:
        return cell(done)
    return f"{done}/{planned}"


def stopped(trial: Facts) -> str | None:
    """Return the sentence for a complete trial that was stopped early; None for any other."""
    if trial.get("state") != "complete" or not trial.get("stopped"):
        return None
    done, planned = trial.get("epochs"), trial.get("planned_epochs")
    where = f" at epoch {done} of {planned}" if planned else ""
    return f"trial {trial.get('number')} was stopped{where}: {cell(trial.get('stopped'))}"


def duration(trial: Facts) -> str:
    """Return how long a trial took."""
    seconds = trial.get("duration_s")
    return "-" if seconds is None else format_duration(seconds)


def outcome(trial: Facts) -> str:
    """Return the value of a complete trial, or of a running one so far, or else its state."""
    state = cell(trial.get("state"))
    known = state == "complete" or (state == "running" and trial.get("value") is not None)
    return number(trial.get("value")) if known else state


def row(trial: Facts, wide: bool) -> list[str]:
    """Return a trial as the cells of a table with the columns of ``columns``."""
    start = [cell(trial.get("number")), outcome(trial), cell(trial.get("backbone")), depth(trial)]
    if not wide:
        return [*start, duration(trial)]
    middle = [head(trial), optimizer(trial), learning_rate(trial), epochs(trial)]
    return [*start, *middle, duration(trial)]


def columns(metric: str, wide: bool) -> list[tuple[str, bool]]:
    """Return the headers of ``row`` and whether they are numbers."""
    if not wide:
        narrow = [("trial", True), ("value", True), ("backbone", False), ("from", True)]
        return [*narrow, ("time", True)]
    return [
        ("trial", True),
        (metric, True),
        ("backbone", False),
        ("fine-tune at", True),
        ("head", False),
        ("optimizer", False),
        ("rate", True),
        ("epochs", True),
        ("time", True),
    ]


def stage(what: str) -> str:
    """Return what long work is called: to a backend, frozen layers are a prefix."""
    name, space, network = what.partition(" ")
    return f"storing frozen layers of {network}" if name == "prefix" and space else what


def recipe(trial: Facts) -> str:
    """Return a trial's setup on one line."""
    parts = [cell(trial.get("backbone"))]
    if depth(trial) != "-":
        parts.append(place(trial))
    if head(trial) != "-":
        parts.append(f"head {head(trial)}")
    if optimizer(trial) != "-":
        parts.append(f"{optimizer(trial)} {learning_rate(trial)}")
    return ", ".join(parts)


def finished_trial(event: Facts, metric: str) -> str:
    """Return the one plain line of a finished trial."""
    state = str(event.get("state"))
    line = f"trial {event.get('number')} {state}"
    if state == "failed":
        line += f": {cell(event.get('reason') or 'no reason given')}"
    elif event.get("value") is not None:
        line += f": {metric} {number(event['value'])}"
    line += f", {recipe(event)}"
    line += _epochs(event)
    line += f", {duration(event)}" if event.get("duration_s") is not None else ""
    if event.get("best"):
        return f"{line} (best so far)"
    if event.get("best_value") is not None:
        return f"{line} (best: trial {event.get('best_number')}, {number(event['best_value'])})"
    return line


def _epochs(event: Facts) -> str:
    done, planned = event.get("epochs"), event.get("planned_epochs")
    if not done:
        return ""
    if not planned or done >= planned:
        return f", {plural(done, 'epoch')}"
    if event.get("stopped"):
        return f", stopped at epoch {done} of {planned} ({cell(event['stopped'])})"
    return f", {done} of {planned} epochs"


def study(event: Facts) -> str:
    """Return what a search is about to do, in two sentences."""
    images = event.get("images") or {}
    counts = ", ".join(f"{images[s]} {s}" for s in ("train", "validation", "test") if s in images)
    keys = [cell(name) for name in event.get("backbones") or ()]
    named = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
    finished = plural(event.get("finished") or 0, "finished trial")
    start = f"resumes with {finished}" if event.get("resumed") else "starts"
    return (
        f"study {cell(event.get('name'))} {start}: {plural(event.get('classes') or 0, 'class')}, "
        f"{counts} images; {'backbone' if len(keys) == 1 else 'backbones'} {named}; "
        f"{bounds(event.get('bounds') or {})}."
    )


def bounds(bound: Facts) -> str:
    """Return when a search ends."""
    parts = []
    if bound.get("trials") is not None:
        parts.append(plural(bound["trials"], "trial"))
    if bound.get("time") is not None:
        parts.append(format_duration(bound["time"]))
    if bound.get("target") is not None:
        parts.append(f"a value of {bound['target']}")
    until = f"until {' or '.join(parts)}" if parts else "until stopped"
    longest = bound.get("trial_timeout")
    return until if longest is None else f"{until}, at most {format_duration(longest)} a trial"


def stopping(reason: str, study: Facts) -> str:
    """Return why a search ends, and after Ctrl-C how to go on."""
    if reason == "interrupted" and study.get("directory"):
        named = reference(Path(study["directory"])) + flags()
        again = f"automl-tl resume {named}"
        return f"Interrupted: stopping cleanly; `{again}` continues, Ctrl-C again stops at once."
    return f"Stopping: {cell(reason).rstrip('.')}."


def worker_died(event: Facts) -> str:
    """Return the sentence for a worker that died."""
    return f"worker {event.get('worker')} died: {cell(event.get('reason'))}."


def members(found: Iterable[Mapping[str, Any]]) -> str:
    """Return an ensemble's members: ``3, 7 x2``."""
    return ", ".join(
        f"{one['trial']}" + (f" x{one['draws']}" if one["draws"] > 1 else "") for one in found
    )
