"""Images to pretrain on that nobody had to take: characters, shapes, textures and colours.

Every class is drawn as a function of the plane, evaluated at pixel positions that a random affine
map and a random smooth warp have moved, so that each image is a new one. Part of them is reduced
to a few pixels a side and enlarged again, as low-resolution scans are, and part is greyscale.
The characters are invented: random lines, arcs and loops, the same for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from outlines import CHARACTERS, POINTS, STROKES, alphabet, shapes
from PIL import Image

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

SIZE = 32
RESOLUTIONS = (8, 10, 12, 16, 24)
SHARES = (0.4, 0.2, 0.15, 0.15, 0.1)
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
HUES = 8


@dataclass(frozen=True, slots=True)
class Texture:
    """A texture class: kind, angle in radians and frequency in periods over the image."""

    kind: str
    angle: float = 0.0
    frequency: float = 4.0


TEXTURES = (
    *(Texture("stripes", a * np.pi / 4, f) for a in range(4) for f in (2.0, 4.0, 7.0)),
    *(Texture("checks", a * np.pi / 4, f) for a in range(2) for f in (2.0, 4.0)),
    *(Texture("dots", 0.0, f) for f in (3.0, 5.0)),
    *(Texture("holes", 0.0, f) for f in (3.0, 5.0)),
    *(Texture("rings", 0.0, f) for f in (2.0, 4.0)),
    *(Texture("spokes", 0.0, f) for f in (3.0, 6.0)),
    *(Texture("noise", 0.0, f) for f in (1.5, 4.0, 9.0)),
    *(Texture("gradient", a * np.pi / 2, 1.0) for a in range(4)),
    *(Texture("bricks", a * np.pi / 2, 3.0) for a in range(2)),
    Texture("flat"),
)


def class_names() -> list[str]:
    """Return a name for every label: characters, shapes, textures, hues."""
    return [
        *(f"character {i}" for i in range(CHARACTERS)),
        *(f"shape {i}" for i in range(len(shapes()))),
        *(f"{t.kind} {np.degrees(t.angle):.0f} {t.frequency:g}" for t in TEXTURES),
        *(f"hue {360 * i // HUES}" for i in range(HUES)),
    ]


def generate(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one new image for every label.

    Args:
        labels: ``(N,)``, indices into ``class_names()``.
        rng: Source of everything random.

    Returns:
        RGB ``(N, 32, 32, 3)``.
    """
    bounds = np.cumsum([CHARACTERS, len(shapes()), len(TEXTURES)])
    kinds = np.searchsorted(bounds, labels, side="right")
    images = np.empty((len(labels), SIZE, SIZE, 3), np.float32)
    for kind, draw in enumerate((_characters, _shapes, _textures, _hues)):
        rows = np.flatnonzero(kinds == kind)
        if rows.size:
            first = bounds[kind - 1] if kind else 0
            images[rows] = draw(labels[rows] - first, rng)
    return _scan(images, rng)


def _characters(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    n = len(labels)
    strokes = alphabet()[labels] * _uniform(rng, 0.85, 1.15, n, STROKES, 1, 2)
    strokes = strokes + rng.normal(0, 0.06, (n, STROKES, 1, 2))
    strokes = strokes + rng.normal(0, 0.03, (n, STROKES, POINTS, 2))
    start, end = strokes[:, :, :-1].reshape(n, -1, 2), strokes[:, :, 1:].reshape(n, -1, 2)
    distance, _ = _outline(_plane(n, rng, turn=0.3), start, end)
    return _paint(_ink(distance - _uniform(rng, 0.04, 0.22, n, 1, 1), rng), rng)


def _shapes(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    n = len(labels)
    corners = shapes()[labels].astype(np.float32)
    plane = _plane(n, rng, turn=0.3, low=0.9, high=1.8)
    distance, inside = _outline(plane, corners, np.roll(corners, -1, 1))
    filled = rng.random((n, 1, 1)) < 0.6
    width = _uniform(rng, 0.06, 0.15, n, 1, 1)
    return _paint(
        _ink(np.where(filled, np.where(inside, -distance, distance), distance - width), rng), rng
    )


def _textures(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    plane = _plane(len(labels), rng, turn=0.2, low=0.85, high=1.2)
    values = np.empty(plane.shape[:3], np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        values[rows] = _texture(TEXTURES[label], plane[rows], rng)
    sharp = _uniform(rng, 1.0, 6.0, len(labels), 1, 1)
    soft = np.array([TEXTURES[label].kind in ("noise", "gradient", "flat") for label in labels])
    values = np.where(soft[:, None, None], values, np.tanh(values * sharp))
    return _paint(values / 2 + 0.5, rng)


def _texture(texture: Texture, plane: Floats, rng: np.random.Generator) -> Floats:
    """Values of about [-1, 1], ``(N, S, S)``."""
    n = len(plane)
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    cos, sin = np.cos(texture.angle), np.sin(texture.angle)
    u = plane[..., 0] * cos + plane[..., 1] * sin
    v = plane[..., 1] * cos - plane[..., 0] * sin
    a = u * np.pi * texture.frequency + phase[0]
    b = v * np.pi * texture.frequency + phase[1]
    match texture.kind:
        case "stripes":
            values = np.sin(a)
        case "checks":
            values = np.sin(a) * np.sin(b) * 2
        case "dots":
            values = np.sin(a) + np.sin(b) - 1
        case "holes":
            values = 1 - np.sin(a) - np.sin(b)
        case "rings":
            centre = rng.uniform(-0.3, 0.3, (2, n, 1, 1))
            radius = np.hypot(u - centre[0], v - centre[1])
            values = np.sin(radius * 2 * np.pi * texture.frequency + phase[0])
        case "spokes":
            centre = rng.uniform(-0.3, 0.3, (2, n, 1, 1))
            angle = np.arctan2(v - centre[1], u - centre[0])
            values = np.sin(angle * texture.frequency + phase[0])
        case "bricks":
            row = np.floor(b / (2 * np.pi))
            values = np.minimum(np.abs(np.sin(b / 2)), np.abs(np.sin(a / 4 + row * np.pi / 2))) * 4
            values = values - 1
        case "noise":
            values = _noise(n, texture.frequency, rng)
        case "gradient":
            values = u
        case _:
            values = np.zeros_like(u)
    field: Floats = values.astype(np.float32)
    return field


def _hues(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Cloudy patches of one hue, of any saturation, lightness and coarseness."""
    n = len(labels)
    hue = (labels + rng.uniform(-0.3, 0.3, n))[:, None, None] / HUES
    clouds = np.concatenate([_noise(1, rng.uniform(1, 8), rng) for _ in range(n)])
    value = np.clip(_uniform(rng, 0.4, 0.9, n, 1, 1) + clouds * 0.2, 0, 1)
    saturation = _uniform(rng, 0.4, 1.0, n, 1, 1)
    offsets = np.array([5, 3, 1])
    k = (offsets + hue[..., None] * 6) % 6
    wheel = np.clip(np.minimum(k, 4 - k), 0, 1)
    painted: Floats = (value[..., None] * (1 - saturation[..., None] * wheel)).astype(np.float32)
    return painted


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return rng.uniform(low, high, shape).astype(np.float32)


def _plane(
    n: int, rng: np.random.Generator, turn: float, low: float = 0.8, high: float = 1.5
) -> Floats:
    """Pixel positions ``(n, S, S, 2)``, moved by a random affine map and a smooth warp."""
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    angle, shear = rng.normal(0, turn / 2, (2, n)).clip(-2 * turn, 2 * turn)
    sx, sy = rng.uniform(low, high, (2, n)) * (rng.uniform(0.85, 1.3, (2, n)) ** [[1], [0]])
    matrix = np.stack([
        np.stack([np.cos(angle) * sx, (np.sin(angle) + shear) * sx], -1),
        np.stack([-np.sin(angle) * sy, np.cos(angle) * sy], -1),
    ], -2)  # fmt: skip
    moved = np.stack([x, y], -1)[None] + rng.uniform(-0.15, 0.15, (n, 1, 1, 2))
    plane = np.einsum("nij,nhwj->nhwi", matrix, moved)
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    rate = rng.uniform(1, 4, (2, n, 1, 1))
    size = rng.uniform(0, 0.08, (2, n, 1, 1))
    plane[..., 0] += size[0] * np.sin(rate[0] * y + phase[0])
    plane[..., 1] += size[1] * np.sin(rate[1] * x + phase[1])
    warped: Floats = plane.astype(np.float32)
    return warped


def _outline(plane: Floats, start: Floats, end: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Distance to the nearest of the segments, and whether they enclose the position."""
    x, y = np.ascontiguousarray(plane[..., 0]), np.ascontiguousarray(plane[..., 1])
    nearest = np.full(x.shape, 9.0, np.float32)
    inside = np.zeros(x.shape, np.bool_)
    sides = (end - start).astype(np.float32)
    squares = np.maximum((sides**2).sum(-1), 1e-8)
    for s in range(start.shape[1]):
        ax, ay = (start[:, s, i].astype(np.float32)[:, None, None] for i in (0, 1))
        dx, dy = (sides[:, s, i][:, None, None] for i in (0, 1))
        px, py = x - ax, y - ay
        t = np.clip((px * dx + py * dy) / squares[:, s, None, None], 0, 1)
        np.minimum(nearest, (px - t * dx) ** 2 + (py - t * dy) ** 2, out=nearest)
        crosses = (py >= 0) != (py - dy >= 0)
        inside ^= crosses & ((px * dy < py * dx) == (dy > 0))
    return np.sqrt(nearest), inside


def _ink(signed: Floats, rng: np.random.Generator) -> Floats:
    """Turn a signed distance into ink in [0, 1] with a soft edge."""
    edge = _uniform(rng, 0.05, 0.2, len(signed), 1, 1)
    return np.clip(0.5 - signed / edge, 0, 1)


def _paint(ink: Floats, rng: np.random.Generator) -> Floats:
    """Mix two colours, greys for half of the images, the second one sometimes cloudy."""
    n = len(ink)
    colours = _uniform(rng, 0, 1, 2, n, 3)
    grey = rng.random(n) < 0.6
    dark = rng.beta(1, 6, n)
    light = 1 - rng.beta(1, 4, n) * 0.7
    swap = rng.random(n) < 0.5
    colours[0, grey] = np.where(swap, dark, light)[grey, None]
    colours[1, grey] = np.where(swap, light, dark)[grey, None]
    alike = np.abs(colours[0] - colours[1]).max(-1) < 0.35
    colours[1, alike] = (colours[0, alike] + 0.5) % 1
    front, back = colours[:, :, None, None]
    cloudy = (rng.random(n) < 0.3) * rng.uniform(0.1, 0.4, n)
    clouds = _noise(n, rng.uniform(1, 4), rng) * cloudy[:, None, None]
    back = np.clip(back + clouds[..., None], 0, 1)
    mixed: Floats = (back + (front - back) * ink[..., None]).astype(np.float32)
    return mixed


def _noise(n: int, frequency: float, rng: np.random.Generator) -> Floats:
    """Random clouds of about the given number of periods over the image, within [-1, 1]."""
    grid = max(2, round(2 * frequency))
    up = resampling(grid, SIZE, Image.Resampling.BICUBIC)
    values = np.clip(up @ rng.normal(0, 0.6, (n, grid, grid)) @ up.T, -1, 1)
    return values.astype(np.float32)


@cache
def resampling(source: int, target: int, kind: Image.Resampling) -> Floats:
    """Return Pillow's resampling of one axis as a matrix ``(target, source)``."""
    rows = Image.fromarray(np.eye(source, dtype=np.float32))
    return np.asarray(rows.resize((source, target), kind), np.float32)


def _scan(images: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Reduce and enlarge half of the images, add noise and round to uint8."""
    n = len(images)
    choice = np.where(rng.random(n) < 0.6, rng.choice(len(RESOLUTIONS), n, p=SHARES), -1)
    kinds = rng.integers(0, len(FILTERS), n)
    for r, side in enumerate(RESOLUTIONS):
        down = resampling(SIZE, side, Image.Resampling.BOX)
        for k, kind in enumerate(FILTERS):
            rows = np.flatnonzero((choice == r) & (kinds == k))
            if rows.size:
                both = resampling(side, SIZE, kind) @ down
                images[rows] = np.einsum(
                    "yh,nhwc,xw->nyxc", both, images[rows], both, optimize=True
                )
    noise = rng.normal(0, 1, images.shape[:3])[..., None] * _uniform(rng, 0, 0.06, n, 1, 1, 1)
    scanned: NDArray[np.uint8] = np.clip((images + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
    return scanned
