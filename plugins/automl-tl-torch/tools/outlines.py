"""What ``synthetic.py`` draws with lines: invented characters and plain shapes, as points."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

CHARACTERS = 438
STROKES, POINTS = 3, 9
ALPHABET_SEED = 20_261_123


@cache
def alphabet() -> Floats:
    """Return the characters as strokes, ``(CHARACTERS, STROKES, POINTS, 2)`` within [-0.8, 0.8]."""
    rng = np.random.default_rng(ALPHABET_SEED)
    characters = np.stack([_character(rng) for _ in range(CHARACTERS)])
    points = characters.reshape(CHARACTERS, -1, 2)
    low, high = points.min(1), points.max(1)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.3)
    scaled: Floats = (characters - centre[:, None, None]) / half[:, None, None] * 0.8
    return scaled


def _character(rng: np.random.Generator) -> Floats:
    """Two or three strokes; each may start where the one before ended. Spares repeat the last."""
    strokes = [_stroke(rng)]
    for _ in range(rng.integers(1, STROKES)):
        stroke = _stroke(rng)
        joined = rng.random() < 0.5
        strokes.append(stroke + (strokes[-1][-1] - stroke[0]) * joined)
    return np.stack([strokes[min(i, len(strokes) - 1)] for i in range(STROKES)])


def _stroke(rng: np.random.Generator) -> Floats:
    stroke: Floats
    t = np.linspace(0.0, 1.0, POINTS)[:, None]
    anchors = rng.integers(-2, 3, (3, 2)) / 2 * (0.7, 1.0) + rng.normal(0, 0.08, (3, 2))
    kind = rng.choice(["line", "curve", "arc", "loop"], p=[0.3, 0.25, 0.25, 0.2])
    if kind == "line":
        end = anchors[1] if np.abs(anchors[1] - anchors[0]).max() > 0.5 else -anchors[0] + 0.3
        stroke = anchors[0] * (1 - t) + end * t
    elif kind == "curve":
        bend = anchors[1] * 2
        stroke = (1 - t) ** 2 * anchors[0] + 2 * t * (1 - t) * bend + t**2 * anchors[2]
    else:
        extent = 2 * np.pi if kind == "loop" else rng.uniform(0.6, 1.7) * np.pi
        angle = rng.uniform(0, 2 * np.pi) + t * extent * rng.choice([-1, 1])
        radii = rng.uniform(0.3, 0.7, 2)
        stroke = anchors[0] / 2 + np.hstack([np.cos(angle), np.sin(angle)]) * radii
    return stroke


@cache
def shapes() -> Floats:
    """Return the shapes as closed polygons ``(shapes, 32, 2)`` within the unit circle."""

    def ring(radius: Floats, turn: float = -np.pi / 2) -> Floats:
        angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) + turn
        points: Floats = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
        return points

    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    heart = np.stack([np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t)) / 17 - 0.2], 1)
    bow = np.linspace(-2, 2, 16)
    crescent = np.stack([np.cos(bow), np.sin(bow)], 1)
    inner = np.stack([np.cos(bow) * 0.55 - 0.1, np.sin(bow) * 0.9], 1)[::-1]
    outlines = [
        *(ring(np.ones(n)) for n in (3, 4, 5, 6)),
        ring(np.ones(4), -np.pi / 4),
        ring(np.ones(32)),
        ring(np.ones(32)) * (1.0, 0.5),
        ring(np.ones(32)) * (0.5, 1.0),
        *(ring(np.tile([1.0, 0.4], n)) for n in (3, 4, 5, 7)),
        ring(1 - 0.25 * np.cos(5 * t)),
        heart,
        np.concatenate([crescent, inner]),
        np.array([[1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1], [-1, -3], [1, -3],
                  [1, -1], [3, -1], [3, 1], [1, 1]]) / 3.2,
        np.array([[-2, -3], [0, -3], [0, 1], [2, 1], [2, 3], [-2, 3]]) / 3.6,
        np.array([[-3, -3], [3, -3], [3, -1], [1, -1], [1, 3], [-1, 3], [-1, -1], [-3, -1]]) / 4,
        np.array([[0, -3], [3, 0], [1, 0], [1, 3], [-1, 3], [-1, 0], [-3, 0]]) / 3.2,
        np.array([[-3, -1], [3, -1], [3, 1], [-3, 1]]) / 3.2,
    ]  # fmt: skip
    padded = [np.concatenate([o, np.repeat(o[-1:], 32 - len(o), 0)]) for o in outlines]
    return np.stack(padded)
