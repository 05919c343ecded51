"""The report's own plots, as plotly's plain data; a plot that would say nothing is a sentence.

Colours are Okabe and Ito's palette for all kinds of colour vision, in tones that stand out from
white and from black alike; what else is drawn takes the page's colours, see ``style.css``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Facts = Mapping[str, Any]
    Figure = dict[str, Any] | str
else:
    Figure = Any

BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, OCHRE, GREY = "#b8649a", "#b88000", "#7f8790"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, OCHRE, GREY)
SHADES = [[0.0, "#8fa3b3"], [1.0, BLUE]]
LABEL = 24
"""Longer names are cut in a plot."""
BARS = 500
"""So many of the last trials are drawn in the timeline."""
POINTS = 1000

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")
_STATES = {"complete": BLUE, "pruned": OCHRE, "failed": VERMILLION, "running": GREEN}


def plain(text: object, width: int | None = None) -> str:
    """Return text that plotly shows literally: it reads tags and entities in every label."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    if width and len(line) > width:
        line = f"{line[: width - 1]}…"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def layout(height: int) -> dict[str, Any]:
    """Return what all plots share."""
    return {
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13, "color": "#555", "family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "#23272e", "bordercolor": "#23272e", "font": {"color": "#fff"}},
        "dragmode": False,
    }


def axis(title: str, metric: str | None = None) -> dict[str, Any]:
    """Return an axis; one of a metric that is a share is labelled in per cent."""
    found: dict[str, Any] = {
        "title": {"text": plain(title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "fixedrange": True,
        "gridcolor": "#888",
    }
    return found | {"tickformat": ".0%"} if metric and metric != "log_loss" else found


def log_scale(values: Sequence[float]) -> dict[str, Any]:
    """Return what makes an axis logarithmic, with a tick a decade, or more where that is none."""
    wide = max(values) >= 30 * min(values)
    return {"type": "log", "dtick": 1 if wide else "D2", "tickformat": "~g"}


def progress(trials: Sequence[Facts], metric: str, direction: str) -> Figure:
    """Best value so far over the search's own clock."""
    done = sorted(
        (row for row in trials if row["value"] is not None and row["end"] is not None),
        key=lambda row: (row["end"], row["number"]),
    )
    if len(done) < 2:
        return "Not drawn: it takes two complete trials."
    better = max if direction == "maximize" else min
    best: list[float] = []
    for row in done:
        best.append(row["value"] if not best else better(best[-1], row["value"]))
    unit, scale = _unit(done[-1]["end"])
    shown = done if len(done) <= POINTS else done[:: -(-len(done) // POINTS)]
    steps = [i for i in range(len(best)) if i in (0, len(best) - 1) or best[i] != best[i - 1]]
    return {
        "data": [
            {
                "x": [row["end"] / scale for row in shown],
                "y": [row["value"] for row in shown],
                "customdata": [row["number"] for row in shown],
                "mode": "markers",
                "name": "a trial",
                "marker": {"color": GREY, "size": 6},
                "hovertemplate": "trial %{customdata}: %{y:.4f}<extra></extra>",
            },
            {
                "x": [done[i]["end"] / scale for i in steps],
                "y": [best[i] for i in steps],
                "mode": "lines",
                "name": "best so far",
                "line": {"color": BLUE, "width": 2, "shape": "hv"},
                "hovertemplate": "%{y:.4f} after %{x:.1f}<extra></extra>",
            },
        ],
        "layout": layout(320) | {"xaxis": axis(f"{unit} of search"), "yaxis": axis(metric, metric)},
    }


def timeline(trials: Sequence[Facts]) -> Figure:
    """What each worker did when, in the search's own clock."""
    known = [row for row in trials if row["start"] is not None][-BARS:]
    if not known:
        return "Not drawn: no trial has begun."
    unit, scale = _unit(max(row["end"] for row in known))
    lanes = sorted({row["lane"] for row in known})
    data = []
    for state, colour in _STATES.items():
        own = [row for row in known if row["state"] == state]
        if own:
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": state,
                    "base": [row["start"] / scale for row in own],
                    "x": [max(0.0, row["end"] - row["start"]) / scale for row in own],
                    "y": [f"worker {row['lane'] + 1}" for row in own],
                    "marker": {
                        "color": colour,
                        "line": {"color": "rgba(255,255,255,0.5)", "width": 1},
                    },
                    "text": [plain(f"trial {row['number']}: {row['recipe']}") for row in own],
                    "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    return {
        "data": data,
        "layout": layout(120 + 34 * len(lanes))
        | {
            "barmode": "overlay",
            "showlegend": True,
            "xaxis": axis(f"{unit} of search"),
            "yaxis": axis("") | {"autorange": "reversed", "ticksuffix": " ", "type": "category"},
        },
    }


def cost(trials: Sequence[Facts], frontier: Sequence[int], metric: str) -> Figure:
    """Value against the seconds that a trial took, with the frontier of the cheapest."""
    known = [row for row in trials if row["value"] is not None and row["cost_s"]]
    if len(known) < 3:
        return "Not drawn: it takes three complete trials of different parameters."
    names = sorted({row["backbone"] for row in known})
    frameworks = sorted({row["framework"] for row in known})
    data: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        own = [row for row in known if row["backbone"] == name][-POINTS:]
        symbol = _SYMBOLS[frameworks.index(own[0]["framework"]) % len(_SYMBOLS)]
        data.append(
            {
                "x": [row["cost_s"] for row in own],
                "y": [row["value"] for row in own],
                "text": [plain(f"trial {row['number']}: {row['recipe']}") for row in own],
                "mode": "markers",
                "name": plain(name, LABEL),
                "marker": {"color": COLOURS[min(index, 5)], "symbol": symbol, "size": 8},
                "hovertemplate": "%{text}<br>%{y:.4f} in %{x:.1f} s<extra></extra>",
            }
        )
    chosen = sorted((row for row in known if row["number"] in frontier), key=_cost)
    data.append(
        {
            "x": [row["cost_s"] for row in chosen],
            "y": [row["value"] for row in chosen],
            "mode": "lines",
            "name": "frontier",
            "line": {"color": VERMILLION, "width": 1.5, "shape": "hv"},
            "hoverinfo": "skip",
        }
    )
    x = axis("seconds of the trial, logarithmic") | log_scale([row["cost_s"] for row in known])
    return {
        "data": data,
        "layout": layout(360) | {"showlegend": True, "xaxis": x, "yaxis": axis(metric, metric)},
    }


def backbones(trials: Sequence[Facts], table: Sequence[Facts], metric: str) -> Figure:
    """The complete trials of each backbone."""
    names = [row["name"] for row in table if row["complete"]][:30]
    if len(names) < 2:
        return "Not drawn: only one backbone has a complete trial."
    frameworks = sorted({name.partition("/")[0] for name in names})
    data = []
    for index, framework in enumerate(frameworks):
        own = [
            row
            for row in trials
            if row["value"] is not None
            and row["framework"] == framework
            and row["backbone"] in names
        ][-POINTS:]
        data.append(
            {
                "x": [row["value"] for row in own],
                "y": [plain(row["backbone"], LABEL) for row in own],
                "text": [plain(f"trial {row['number']}: {row['recipe']}") for row in own],
                "mode": "markers",
                "name": plain(framework),
                "marker": {
                    "color": COLOURS[index % 6],
                    "symbol": _SYMBOLS[index % len(_SYMBOLS)],
                    "size": 8,
                    "opacity": 0.75,
                },
                "hovertemplate": "%{text}<br>%{x:.4f}<extra></extra>",
            }
        )
    y = axis("") | {"type": "category", "ticksuffix": " ", "categoryorder": "array"}
    y["categoryarray"] = [plain(name, LABEL) for name in reversed(names)]
    y["range"] = [-0.6, len(names) - 0.4]
    return {
        "data": data,
        "layout": layout(110 + 30 * len(names))
        | {"showlegend": True, "xaxis": axis(metric, metric), "yaxis": y},
    }


def _cost(row: Facts) -> float:
    return float(row["cost_s"])


def _unit(seconds: float) -> tuple[str, float]:
    """Return the unit that a span of time is best drawn in, and its seconds."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)
