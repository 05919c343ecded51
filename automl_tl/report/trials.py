"""What a report says of the search: its trials, where they ran, what each backbone reached."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from automl_tl import metrics
from automl_tl.facts import facts_of, twin_of
from automl_tl.files import read_json
from automl_tl.owner import OWNER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import optuna

    from automl_tl.study import StudyDirectory

    Trial = optuna.trial.FrozenTrial
    Facts = Mapping[str, Any]

CURVES = 6
"""So many of the best trials get learning curves."""

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def rows(study: optuna.Study) -> list[dict[str, Any]]:
    """Return one row a trial that has begun, by number.

    ``start`` and ``end`` are seconds on the search's own clock, which stands still while no trial
    runs; ``lane`` tells workers apart, 0 first; ``cost_s`` is None where the figures were taken
    over from a twin.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state in _STATES]
    spans = _spans(trials)
    clock = _Clock(list(spans.values()))
    lanes = _lanes(trials, spans)
    return [_row(trial, spans.get(trial.number), clock, lanes) for trial in trials]


def _row(
    trial: Trial,
    span: tuple[datetime, datetime] | None,
    clock: _Clock,
    lanes: Mapping[int, int],
) -> dict[str, Any]:
    facts = facts_of(trial)
    spec = facts.get("spec", {})
    backbone = spec.get("backbone")
    twin = twin_of(trial)
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "value": float(trial.values[0]) if trial.state == TrialState.COMPLETE else None,
        "last_value": facts.get("last_value"),
        "backbone": backbone,
        "framework": backbone.partition("/")[0] if backbone else None,
        "recipe": recipe(facts),
        "spec": {key: value for key, value in spec.items() if value is not None},
        "start": clock.at(span[0]) if span else None,
        "end": clock.at(span[1]) if span else None,
        "lane": lanes.get(trial.number, 0),
        "duration_s": facts.get("duration_s"),
        "cost_s": None if twin is not None else facts.get("duration_s"),
        "epochs": facts.get("epochs", 0),
        "fine_tune_at": facts.get("fine_tune_at"),
        "layers": facts.get("layers"),
        "total_parameters": facts.get("total_parameters"),
        "trainable_parameters": facts.get("trainable_parameters"),
        "device": facts.get("device"),
        "reuse": facts.get("reuse"),
        "reason": facts.get("reason"),
        "stopped": facts.get("stopped"),
        "notes": facts.get("notes", []),
        "twin_of": twin,
    }


def recipe(facts: Facts) -> str:
    """Return what a trial trained, in a few words."""
    spec = facts.get("spec")
    if not spec:
        return "died before it began"
    units = spec["head_units"]
    head = (
        f"head of {' and '.join(str(width) for width in units)} units" if units else "linear head"
    )
    where = depth(facts)
    parts = [str(spec["backbone"]), *([where] if where else []), head]
    second = spec.get("fine_tune_optimizer", "same")
    optimizer = spec["optimizer"] if second == "same" else f"{spec['optimizer']} then {second}"
    return ", ".join([*parts, f"{optimizer} at {spec['learning_rate']:.1e}"])


def depth(facts: Facts) -> str:
    """Say where fine-tuning starts; nothing when that is not known yet."""
    at, layers = facts.get("fine_tune_at"), facts.get("layers")
    if at is None or layers is None:
        return ""
    if at >= layers:
        return "frozen"
    return "all layers fine-tuned" if at == 0 else f"fine-tuned from layer {at} of {layers}"


def groups(trials: Sequence[Facts], key: str, metric: str) -> list[dict[str, Any]]:
    """Return what each ``backbone`` or ``framework`` reached, the best first."""
    found = []
    for name in sorted({str(row[key]) for row in trials if row[key]}):
        own = [row for row in trials if row[key] == name]
        values = [row["value"] for row in own if row["value"] is not None]
        found.append(
            {
                "name": name,
                "trials": len(own),
                "complete": len(values),
                "best": max(values, key=lambda v: metrics.goodness(v, metric), default=None),
                "median": statistics.median(values) if values else None,
                "seconds": sum(row["duration_s"] or 0 for row in own),
            }
        )
    worst = float("-inf")
    return sorted(
        found,
        key=lambda row: worst if row["best"] is None else metrics.goodness(row["best"], metric),
        reverse=True,
    )


def frontier(trials: Sequence[Facts], metric: str) -> list[Facts]:
    """Return the complete trials that no cheaper trial equals, by cost."""
    known = [row for row in trials if row["value"] is not None and row["cost_s"]]
    best = float("-inf")
    found = []
    for row in sorted(known, key=lambda r: (r["cost_s"], -metrics.goodness(r["value"], metric))):
        if metrics.goodness(row["value"], metric) > best:
            best = metrics.goodness(row["value"], metric)
            found.append(row)
    return found


def curves(directory: StudyDirectory, best_first: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return the learning curves of the best trials: ``number``, ``recipe`` and ``history``."""
    found: list[dict[str, Any]] = []
    for row in best_first:
        if len(found) == CURVES:
            break
        if history := _history(directory, row["number"]):
            found.append({"number": row["number"], "recipe": row["recipe"], "history": history})
    return found


def time_spent(directory: StudyDirectory, trials: Sequence[Facts]) -> dict[str, Any]:
    """Return where the trials' seconds went, and what stored arrays saved.

    An epoch's seconds include filling the arrays that it is the first to need; these count as
    frozen layers here, not as training.
    """
    frozen = training = other = 0.0
    passes = images = 0
    hits = reused = 0
    saved = 0.0
    for row in trials:
        if row["state"] != "complete" or not row["reuse"]:
            continue
        reuse = row["reuse"]
        filling = sum(done["seconds"] for done in reuse["passes"])
        epochs = sum(epoch["seconds"] for epoch in _history(directory, row["number"]))
        learning = max(0.0, epochs - filling)
        frozen += filling
        training += learning
        other += max(0.0, (row["duration_s"] or 0) - learning - filling)
        passes += len(reuse["passes"])
        images += sum(done["images"] for done in reuse["passes"])
        hits += reuse["hits"]
        reused += reuse["images"]
        saved += reuse["seconds"]
    lost = sum(row["duration_s"] or 0 for row in trials if row["state"] in ("pruned", "failed"))
    return {
        "parts": [
            {"what": "training heads and unfrozen layers", "seconds": round(training, 2)},
            {"what": "running frozen layers, to store their output", "seconds": round(frozen, 2)},
            {"what": "starting, building networks, saving models", "seconds": round(other, 2)},
            {"what": "trials that were pruned, stopped or failed", "seconds": round(lost, 2)},
        ],
        "passes": passes,
        "images": images,
        "hits": hits,
        "reused_images": reused,
        "saved_s": round(saved, 2),
        "twins": sum(row["twin_of"] is not None for row in trials),
        "search_s": round(max((row["end"] or 0 for row in trials), default=0.0), 2),
    }


def _history(directory: StudyDirectory, number: int) -> list[dict[str, Any]]:
    try:
        history = read_json(directory.trial(number) / "history.json")
    except (OSError, ValueError):
        return []
    whole = isinstance(history, list) and all(map(_is_epoch, history))
    return history if whole else []


def _is_epoch(epoch: Any) -> bool:
    """Whether it has what is drawn of an epoch, of the right kinds; figures may be None."""
    if not isinstance(epoch, dict) or not isinstance(epoch.get("phase"), str):
        return False
    figures = all(isinstance(epoch.get(k), float | int | None) for k in ("value", "train_loss"))
    there = "value" in epoch and "train_loss" in epoch
    return (
        there and figures and all(type(epoch.get(k)) in (int, float) for k in ("epoch", "seconds"))
    )


def _spans(trials: Sequence[Trial]) -> dict[int, tuple[datetime, datetime]]:
    """Return begin and end of every trial; one that still runs ends with the last that is known."""
    known = [t.datetime_complete or t.datetime_start for t in trials if t.datetime_start]
    last = max((time for time in known if time), default=None)
    spans = {}
    for trial in trials:
        start, end = trial.datetime_start, trial.datetime_complete or last
        if start and end:
            spans[trial.number] = (start, max(start, end))
    return spans


class _Clock:
    """Counts only the time in which some trial ran."""

    def __init__(self, spans: Sequence[tuple[datetime, datetime]]) -> None:
        self._busy: list[tuple[datetime, datetime]] = []
        self._before: list[float] = []
        for start, end in sorted(spans):
            if self._busy and start <= self._busy[-1][1]:
                begun, until = self._busy[-1]
                self._busy[-1] = (begun, max(until, end))
            else:
                self._busy.append((start, end))
        lengths = ((end - start).total_seconds() for start, end in self._busy)
        self._before = [0.0, *accumulate(lengths)]

    def at(self, when: datetime) -> float:
        """Return the seconds of search before a moment."""
        index = bisect_right(self._busy, when, key=lambda span: span[0])
        if not index:
            return 0.0
        start, end = self._busy[index - 1]
        return round(self._before[index - 1] + (min(end, when) - start).total_seconds(), 3)


def _lanes(
    trials: Sequence[Trial], spans: Mapping[int, tuple[datetime, datetime]]
) -> dict[int, int]:
    """Give every worker a lane; one that starts when another has ended takes its lane."""
    owned: dict[str, list[int]] = {}
    for trial in trials:
        if trial.number in spans:
            owned.setdefault(str(trial.user_attrs.get(OWNER)), []).append(trial.number)
    free: list[datetime] = []
    lanes: dict[int, int] = {}
    for numbers in sorted(owned.values(), key=lambda own: min(spans[n][0] for n in own)):
        start = min(spans[number][0] for number in numbers)
        end = max(spans[number][1] for number in numbers)
        lane = next((i for i, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [end]
        lanes |= dict.fromkeys(numbers, lane)
    return lanes
