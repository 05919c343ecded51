"""Plots of the best models: how they learnt, what they confuse, how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.report.figures import (
    BLUE,
    COLOURS,
    GREY,
    LABEL,
    VERMILLION,
    Figure,
    axis,
    layout,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Facts = Mapping[str, Any]

ANNOTATED = 16
"""The cells of a larger confusion matrix have no numbers; its hover text has."""
_MARKED = 3


def curves(found: Sequence[Facts], key: str, title: str, metric: str | None) -> Figure:
    """Learning curves: ``key`` of every epoch, warm-up dotted, fine-tuning solid.

    A vertical line marks where fine-tuning begins, as in TensorFlow's transfer-learning tutorial.
    """
    if not found:
        return "Not drawn: no trial has left its history yet."
    data, starts = [], set()
    for index, trial in enumerate(found):
        history = trial["history"]
        tuned = next((e["epoch"] for e in history if e["phase"] == "fine-tuning"), None)
        if tuned is not None:
            starts.add(tuned)
        warm = [e for e in history if e["phase"] == "warm-up"]
        # The solid line begins where the dotted one ends.
        parts = [("warm-up", warm), ("fine-tuning", history[max(0, len(warm) - 1) :])]
        for phase, epochs in parts if tuned is not None else parts[:1]:
            data.append(
                {
                    "x": [e["epoch"] + 1 for e in epochs],
                    "y": [e[key] for e in epochs],
                    "mode": "lines",
                    "name": f"trial {trial['number']}",
                    "legendgroup": str(trial["number"]),
                    "showlegend": phase == "warm-up" or not warm,
                    "line": {
                        "color": COLOURS[index % len(COLOURS)],
                        "width": 2,
                        "dash": "dot" if phase == "warm-up" else "solid",
                    },
                    "hovertemplate": f"trial {trial['number']}, {phase}, epoch %{{x}}: "
                    "%{y:.4f}<extra></extra>",
                }
            )
    longest = max(len(trial["history"]) for trial in found)
    marks = sorted(starts) if len(starts) <= _MARKED else []
    return {
        "data": data,
        "layout": layout(340)
        | {
            "showlegend": True,
            "xaxis": axis("epoch") | ({"dtick": 1} if longest < 12 else {}),
            "yaxis": axis(title, metric),
            "shapes": [_line(start + 0.5) for start in marks],
            "annotations": [_note(start + 0.5) for start in marks],
        },
    }


def confusion(matrix: Facts, split: str) -> Figure:
    """Confusion matrix: rows are true classes, columns predictions, colours shares of a row."""
    counts = matrix["counts"]
    names = [plain(name, LABEL) for name in matrix["classes"]]
    size = len(names)
    if not size:
        return "Not drawn: there are no images."
    totals = [sum(row) or 1 for row in counts]
    z = [[count / total for count in row] for row, total in zip(counts, totals, strict=True)]
    hover = [
        [f"{counts[i][j]} of {names[i]}, called {names[j]}" for j in range(size)]
        for i in range(size)
    ]
    places = list(range(size))
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": z,
        "zmin": 0,
        "zmax": 1,
        "x": places,
        "y": places,
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "colorscale": [[0, "rgba(0,114,178,0.04)"], [1, "rgba(0,114,178,1)"]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": names, "showgrid": False}
    own = layout(110 + max(34 * size if size <= ANNOTATED else 18 * size, 160))
    return {
        "data": [trace],
        "layout": own
        | {
            "xaxis": axis(f"predicted ({split})") | ticks | {"tickangle": -45},
            "yaxis": axis("true") | ticks | {"autorange": "reversed", "ticksuffix": " "},
            "annotations": _cells(counts, z) if size <= ANNOTATED else [],
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        },
    }


def reliability(split: Facts, temperature: float | None) -> Figure:
    """Accuracy against confidence, before and after temperature scaling."""
    data: list[dict[str, Any]] = [
        {
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "name": "perfect",
            "line": {"color": GREY, "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
        }
    ]
    named = [("before", "as it is", BLUE, "circle")]
    if temperature:
        named.append(("after", f"temperature {temperature:.2f}", VERMILLION, "diamond"))
    for key, name, colour, symbol in named:
        bins = split[key]["bins"]
        data.append(
            {
                "x": [row["confidence"] for row in bins],
                "y": [row["accuracy"] for row in bins],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [row["interval"][1] - row["accuracy"] for row in bins],
                    "arrayminus": [row["accuracy"] - row["interval"][0] for row in bins],
                    "thickness": 1,
                    "width": 3,
                },
                "customdata": [row["n"] for row in bins],
                "mode": "lines+markers",
                "name": name,
                "line": {"color": colour, "width": 1.5},
                "marker": {"color": colour, "symbol": symbol, "size": 8},
                "hovertemplate": "%{customdata} images: %{x:.0%} sure, %{y:.0%} right"
                "<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": layout(360)
        | {
            "showlegend": True,
            "xaxis": axis("confidence", "accuracy") | {"range": [0, 1.02]},
            "yaxis": axis("share that is right", "accuracy") | {"range": [0, 1.05]},
        },
    }


def _cells(counts: Sequence[Sequence[int]], z: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Numbers in the cells; on the dark ones in white, else in the page's colour."""
    return [
        {
            "x": j,
            "y": i,
            "text": str(count),
            "showarrow": False,
            "font": {"size": 12, "color": "#fffffe" if z[i][j] > 0.45 else "#555"},
        }
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if count
    ]


def _line(x: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1, "dash": "dash"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _note(x: float) -> dict[str, Any]:
    return {
        "x": x,
        "y": 0,
        "yref": "paper",
        "text": "fine-tuning starts",
        "textangle": -90,
        "showarrow": False,
        "xanchor": "right",
        "xshift": -2,
        "yanchor": "bottom",
        "font": {"size": 12},
    }
