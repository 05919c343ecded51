"""One picture of all figures: how far each lies from its target. Plain SVG, written by hand."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.results import Target, Track

LEFT, WIDTH, ROW, TOP, RIGHT = 300, 520, 30, 56, 130
DECADES = 1.3
"""Powers of ten that are drawn on either side of the target."""


def svg(results: Mapping[str, Any], tracks: Mapping[str, Track]) -> str:
    """Return a picture; right of the line is better than what must be reached.

    Args:
        results: As ``results.json`` has it.
        tracks: All tracks, by key.
    """
    rows = list(_rows(results, tracks))
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">Measured, against what must be reached '
        "(log scale; further right is better)</text>",
    ]
    for share in (0.1, 0.3, 1.0, 3.0, 10.0):
        x, bold = _x(share), share == 1.0
        parts.append(
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 8}" y2="{height - 24}" '
            f'stroke="{"#333" if bold else "#ddd"}"/>'
            f'<text x="{x:.0f}" y="{TOP - 12}" text-anchor="middle">{share:g}</text>'
        )
    for number, (label, text, target, one) in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts.append(_bar(target, one, y))
        if target.aim is not None:
            x = _x(_share(target, target.aim))
            parts.append(
                f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{y - 11}" y2="{y + 11}" '
                'stroke="#333" stroke-dasharray="3 2"/>'
            )
        parts.append(f'<text x="{LEFT + WIDTH + 8}" y="{y + 4}">{escape(text)}</text>')
    legend = "solid line: at least; dashed: the aim; grey: accuracies differ, does not count"
    parts.append(f'<text x="{LEFT}" y="{height - 8}" fill="#555">{legend}</text></svg>\n')
    return "\n".join(parts)


def _rows(
    results: Mapping[str, Any], tracks: Mapping[str, Track]
) -> Iterator[tuple[str, str, Target, Mapping[str, Any]]]:
    for key, found in results["tracks"].items():
        targets = {target.what: target for target in tracks[key].targets}
        for one in found.get("measures", ()):
            if one["value"] is not None:
                target = targets[one["what"]]
                text = f"{one['value']:.3g} {target.unit}".strip()
                yield f"{key}: {one['what']}", text, target, one


def _bar(target: Target, one: Mapping[str, Any], y: float) -> str:
    if one["value"] <= 0:  # a difference smaller than its noise
        return ""
    x, base = _x(_share(target, one["value"])), _x(1.0)
    colour = "#bbb" if one["counts"] is False else "#2a7" if x >= base else "#c63"
    left, width = min(x, base), abs(x - base)
    bar = f'<rect x="{left:.1f}" y="{y - 8}" width="{width:.1f}" height="16" fill="{colour}"/>'
    if one["low"] is None:
        return bar
    ends = sorted(_x(_share(target, one[end])) for end in ("low", "high"))
    return f'{bar}<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="black"/>'


def _share(target: Target, value: float) -> float:
    """Return how many times better than needed a value is."""
    value = max(value, 1e-9)
    return value / target.at_least if target.better == "more" else target.at_least / value


def _x(share: float) -> float:
    place = (math.log10(max(share, 1e-9)) + DECADES) / (2 * DECADES)
    return LEFT + WIDTH * min(1.0, max(0.0, place))
