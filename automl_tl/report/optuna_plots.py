"""Optuna's own plots of a study, made to fit the report's page."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from automl_tl import metrics
from automl_tl.report.figures import (
    BLUE,
    GREY,
    SHADES,
    VERMILLION,
    Figure,
    axis,
    layout,
    log_scale,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.trial import FrozenTrial

POINTS = 400
"""At most so many trials are drawn: those that set a record, the best, and others evenly spread."""
LINES = 120
SLICES = 9
AXES = 6
_FEW = 4
_LEAST = 0.01
_TICKS_APART = 0.05
"""Least distance of two ticks, as a share of their axis."""


def plots(study: optuna.Study, metric: str) -> dict[str, Figure | list[Figure]]:
    """Return ``history``, ``importances``, ``parallel`` and the list ``slices``.

    A plot that would say nothing is one sentence that says why.
    """
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.values
    ]
    part = _Part(trials, study.direction, metric, POINTS)
    lines = _Part(trials, study.direction, metric, LINES)
    varied = _varied(trials)
    few = f"Not drawn: it takes {_FEW} complete trials, and there are {len(trials)}."
    same = "Not drawn: all complete trials had the same parameters."
    missing = few if len(trials) < _FEW else None if varied else same
    important = {} if missing else _importance(study, varied)
    ranked = sorted(varied, key=lambda name: -important.get(name, 0.0))
    known = [name for name in ranked if name in part.varied]
    sliced = [name for name in known if name != "backbone"][:SLICES]  # it has a plot of its own
    crossed = [name for name in ranked if name in lines.varied][:AXES]
    return {
        "history": few if len(trials) < 2 else _history(part, metric),
        "importances": missing or _importances(important),
        "parallel": missing or _parallel(lines, crossed, metric),
        "slices": [missing] if missing else [_slice(part, name, metric) for name in sliced],
    }


class _Part:
    """Some of a study's trials, without their attributes, as a study in memory."""

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        direction: optuna.study.StudyDirection,
        metric: str,
        limit: int,
    ) -> None:
        chosen = _sample(trials, metric, limit)
        self.numbers = [trial.number for trial in chosen]
        self.varied = _varied(chosen)
        self.study = optuna.create_study(direction=direction)
        self.study.add_trials(
            [
                optuna.trial.create_trial(
                    values=list(trial.values),
                    params=trial.params,
                    distributions=trial.distributions,
                )
                for trial in chosen
            ]
        )


def _sample(trials: Sequence[FrozenTrial], metric: str, limit: int) -> list[FrozenTrial]:
    if len(trials) <= limit:
        return list(trials)
    values = [metrics.goodness(float(trial.values[0]), metric) for trial in trials]
    best = float("-inf")
    chosen: set[int] = set()
    for index, value in enumerate(values):
        if value > best:
            best = value
            chosen.add(index)
    order = sorted(range(len(trials)), key=lambda i: (-values[i], i))
    chosen |= set(order[: limit // 4])
    step = len(trials) / max(1, limit - len(chosen))
    chosen |= {int(k * step) for k in range(max(0, limit - len(chosen)))}
    return [trials[i] for i in sorted(chosen)]


def _varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the parameters with more than one value."""
    seen: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if len(values) > 1]


def _importance(study: optuna.Study, varied: list[str]) -> dict[str, float]:
    """Return the importances of parameters, the greatest first; nothing where there are none."""
    try:
        found = _quietly(lambda: optuna.importance.get_param_importances(study, params=varied))
    except (RuntimeError, ValueError):
        return {}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _history(part: _Part, metric: str) -> Figure:
    figure = _quietly(
        lambda: optuna.visualization.plot_optimization_history(part.study, target_name=metric)
    )
    made = _restyled(figure, 320)
    made["data"] = [trace for trace in made["data"] if trace.get("x")]
    for trace in made["data"]:
        trace["x"] = [part.numbers[i] for i in trace["x"]]
        markers = trace["mode"] == "markers"
        trace |= {
            "name": "a trial" if markers else "best so far",
            "marker": {"color": GREY, "size": 6},
            "line": {"color": BLUE, "width": 2, "shape": "hv"},
            "hovertemplate": "trial %{x}: %{y:.4f}<extra></extra>",
        }
    made["layout"] |= {"xaxis": axis("trial"), "yaxis": axis(metric, metric)}
    return made


def _importances(found: dict[str, float]) -> Figure:
    """Draw what ``_importance`` found: Optuna's plot copies all trials for every parameter."""
    if not found:
        return "Not drawn: the importances cannot be computed from these trials."
    values = list(found.values())[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": [plain(name) for name in found][::-1],
        "text": [f"{value:.2f}" if value >= _LEAST else f"<{_LEAST}" for value in values],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": BLUE},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
        "showlegend": False,
    }
    own = {
        "xaxis": axis("importance"),
        "yaxis": axis("") | {"ticksuffix": " "},
        "margin": {"l": 8, "r": 44, "t": 8, "b": 8},
    }
    return {"data": [bars], "layout": layout(90 + 26 * len(found)) | own}


def _parallel(part: _Part, names: list[str], metric: str) -> Figure:
    figure = _quietly(
        lambda: optuna.visualization.plot_parallel_coordinate(
            part.study, params=names, target_name=metric
        )
    )
    made = _restyled(figure, 400)
    made["layout"]["margin"] = {"l": 52, "r": 24, "t": 12, "b": 44}
    made["layout"]["annotations"] = _apart(made["layout"]["annotations"])
    for trace in made["data"]:
        if trace["mode"] == "lines":
            trace["hovertemplate"] = "%{customdata[0]}: %{customdata[1]}<extra></extra>"
        else:
            trace["marker"]["showscale"] = False
    made["layout"]["xaxis"] |= {"tickangle": 0, "tickfont": {"size": 11}, "fixedrange": True}
    lines = [trace for trace in made["data"] if trace["mode"] == "lines"]
    lowest = metrics.DIRECTIONS[metric] == "minimize"
    for trace in lines:
        share = 1 - trace["y"][0] if lowest else trace["y"][0]
        trace |= {"opacity": 0.35 + 0.6 * share}
        trace["line"] = {"color": VERMILLION if share == 1 else BLUE, "width": 1 + 1.5 * share}
    return made


def _apart(ticks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out ticks that would be written over the one below or the end of their axis."""
    kept: list[dict[str, Any]] = []
    for x in dict.fromkeys(tick["x"] for tick in ticks):
        own = sorted((tick for tick in ticks if tick["x"] == x), key=lambda tick: tick["y"])
        chosen = own[:1]
        for tick in own[1:-1]:
            if min(tick["y"] - chosen[-1]["y"], own[-1]["y"] - tick["y"]) >= _TICKS_APART:
                chosen.append(tick)
        kept += [*chosen, *own[max(1, len(own) - 1) :]]
    return [tick | {"text": _plain_number(tick["text"])} for tick in kept]


def _plain_number(text: str) -> str:
    """Return a number of at most six digits before the point without an exponent."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text


def _slice(part: _Part, name: str, metric: str) -> Figure:
    figure = _quietly(
        lambda: optuna.visualization.plot_slice(part.study, params=[name], target_name=metric)
    )
    made = _restyled(figure, 230)
    kept = made["layout"].get("xaxis", {})
    for trace in made["data"]:
        numbers = [part.numbers[i] for i in trace["marker"]["color"]]
        trace["marker"] = {"color": numbers, "colorscale": SHADES, "size": 7, "showscale": False}
        trace["customdata"] = numbers
        trace["x"] = [_unquoted(x) for x in trace["x"]]
        trace["hovertemplate"] = "trial %{customdata}: %{y:.4f} at %{x}<extra></extra>"
    x = axis(name) | {key: kept[key] for key in ("type", "categoryorder") if key in kept}
    if "categoryarray" in kept:
        x["categoryarray"] = [_unquoted(label) for label in kept["categoryarray"]]
    if x.get("type") == "log":
        x |= log_scale([value for trace in made["data"] for value in trace["x"]])
    made["layout"] |= {"xaxis": x, "yaxis": axis(metric, metric), "showlegend": False}
    return made


def _unquoted(value: Any) -> Any:
    """Optuna writes the choices of a parameter as Python literals."""
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == "'" else value


def _quietly(call: Callable[[], Any]) -> Any:
    """Plots say nothing on a person's terminal."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    finally:
        optuna.logging.set_verbosity(verbosity)


def _restyled(figure: Any, height: int) -> dict[str, Any]:
    """Return a plotly figure as plain data: texts made safe, Optuna's title and colours gone."""
    made = json.loads(figure.to_json(engine="json"))
    own = {
        key: value
        for key, value in made["layout"].items()
        if key not in {"template", "title", "width", "plot_bgcolor"}
    }
    safe: dict[str, Any] = _safe({"data": made["data"], "layout": {**own, **layout(height)}})
    return safe


def _safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return plain(value) if isinstance(value, str) else value
