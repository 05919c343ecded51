"""Looks at every image of a data set and says what a person should know before a search."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.data import decode, near_duplicates, split
from automl_tl.data.decoding import Decoder
from automl_tl.data.reading import read_image_file
from automl_tl.errors import DataError
from automl_tl.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.data.index import DataIndex, ImageItem

    _Found = tuple[str, int, int, str, bytes]

MAX_LISTED = 1000
"""At most so many pairs or groups are listed; their number is always given in full."""

_GROUP = 8
_IMBALANCE = 3.0
_FEW_IMAGES = 20
_FEW_PIXELS = 32


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of an image; ``reason`` is empty when it is sound."""

    digest: str = ""
    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    grid: NDArray[np.uint8] | None = None


def check_data(
    index: DataIndex,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Read every image, decode what is not a copy, and collect facts, ready for JSON.

    Args:
        index: The data set.
        progress: Called with the number of images done and in all.
        workers: Number of threads; the CPUs that this process may use by default.

    Returns:
        ``name``, ``source``, ``notes``; ``classes``: of each ``name``, ``images``, ``good`` and
        ``splits`` (images by given split); ``images``, ``good``; ``broken``: ``name`` and
        ``reason``; ``formats`` and their counts; ``dimensions``: ``min``, ``median`` and ``max`` of
        ``width`` and ``height`` in pixels, None without a sound image; ``duplicates``: groups of
        names of files with the same bytes; ``label_conflicts``: groups of ``name`` and ``class``
        that have the same bytes and different labels; ``near_duplicates``: ``pairs`` across
        splits with ``names``, ``classes`` and ``splits``, their number ``count``, ``same_split``
        (further pairs on one side) and whether the list or the search was ``truncated``;
        ``splits``: sizes of the splits that ``search`` makes with seed 0, None when it cannot;
        ``imbalance``: largest class over smallest; ``problem``: why a search would fail, or None;
        ``advice``: sentences.
    """
    seen: list[_Seen] = []
    known: dict[str, _Seen] = {}
    paths = (item.path for item in index.items)
    with Decoder(Look(), workers, _GROUP) as decoder, closing(decoder.results(paths)) as results:
        for done, one in enumerate(results, 1):
            if isinstance(one, str):
                seen.append(_Seen(reason=one))
            else:
                digest, width, height, kind, grid = one
                if digest not in known:
                    cells = np.frombuffer(grid, np.uint8).reshape(8, 9)
                    known[digest] = _Seen(digest, "", width, height, kind, cells)
                seen.append(known[digest])
            if progress:
                progress(done, len(index.items))
    good = [row for row, one in enumerate(seen) if not one.reason]
    facts: dict[str, Any] = {
        "name": index.name,
        "source": index.source,
        "notes": list(index.notes),
        "classes": _classes(index, seen),
        "images": len(seen),
        "good": len(good),
        "broken": [
            {"name": item.name, "reason": one.reason}
            for item, one in zip(index.items, seen, strict=True)
            if one.reason
        ],
        "formats": dict(Counter(seen[row].format for row in good).most_common()),
        "dimensions": _dimensions([seen[row] for row in good]),
    }
    facts |= _copies(index, seen, good)
    splits = _splits(index, seen, facts)
    facts["near_duplicates"] = _near_duplicates(index, seen, good, splits)
    counts = [row["good"] for row in facts["classes"]]
    facts["imbalance"] = round(max(counts) / min(counts), 2) if min(counts) else None
    facts["advice"] = _advice(facts)
    return facts


class Look:
    """Looks at a file, see ``data.decoding.Job``; content that is known is not decoded again."""

    def start(self) -> Callable[[Path], _Found]:
        """Return what gives SHA-256, width, height, format and the grid of a path's image."""
        known: dict[str, _Found] = {}

        def look(path: Path) -> _Found:
            data = read_image_file(path)
            digest = hashlib.sha256(data).hexdigest()
            if digest not in known:
                image = decode.decode_sizes(data, (near_duplicates.THUMBNAIL,), "squash")
                grid = near_duplicates.cells(image.pixels[0]).tobytes()
                known[digest] = (digest, image.width, image.height, image.format, grid)
            return known[digest]

        return look


def _classes(index: DataIndex, seen: Sequence[_Seen]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"name": name, "images": 0, "good": 0, "splits": {}} for name in index.classes
    ]
    for item, one in zip(index.items, seen, strict=True):
        row = rows[item.label]
        row["images"] += 1
        row["good"] += not one.reason
        if item.split:
            row["splits"][item.split] = row["splits"].get(item.split, 0) + 1
    return rows


def _dimensions(seen: Sequence[_Seen]) -> dict[str, dict[str, int]] | None:
    if not seen:
        return None
    dimensions = {}
    for side in ("width", "height"):
        values = [getattr(one, side) for one in seen]
        dimensions[side] = {
            "min": min(values),
            "median": round(float(np.median(values))),
            "max": max(values),
        }
    return dimensions


def _copies(index: DataIndex, seen: Sequence[_Seen], good: Sequence[int]) -> dict[str, Any]:
    groups: dict[str, list[ImageItem]] = defaultdict(list)
    for row in good:
        groups[seen[row].digest].append(index.items[row])
    copies = [items for items in groups.values() if len(items) > 1]
    conflicts = [items for items in copies if len({item.label for item in items}) > 1]
    return {
        "duplicates": [[item.name for item in items] for items in copies],
        "label_conflicts": [
            [{"name": item.name, "class": index.classes[item.label]} for item in items]
            for items in conflicts
        ],
    }


def _splits(
    index: DataIndex, seen: Sequence[_Seen], facts: dict[str, Any]
) -> Sequence[str | None] | None:
    """The splits of a search with seed 0; their sizes and what is wrong go into the facts."""
    facts |= {"splits": None, "problem": None}
    try:
        result = split.assign(
            [item.label for item in index.items],
            [one.digest for one in seen],
            [item.split for item in index.items],
            seed=0,
            classes=index.classes,
            names=[item.name for item in index.items],
        )
    except DataError as error:
        facts["problem"] = str(error)
        return None
    sizes = Counter(result.splits)
    facts["splits"] = {name: sizes[name] for name in ("train", "validation", "test")}
    facts["notes"] += result.notes
    return result.splits


def _near_duplicates(
    index: DataIndex,
    seen: Sequence[_Seen],
    good: Sequence[int],
    splits: Sequence[str | None] | None,
) -> dict[str, Any]:
    first_copies = list({seen[row].digest: row for row in reversed(good)}.values())[::-1]
    grids = [grid for row in first_copies if (grid := seen[row].grid) is not None]
    found, truncated = near_duplicates.find_pairs(
        np.stack(grids) if grids else np.empty((0, 8, 9), np.uint8)
    )
    sides = [splits[row] if splits else None for row in first_copies]
    across = near_duplicates.across(found, sides)
    pairs = []
    for pair in across[:MAX_LISTED]:
        rows = [first_copies[one] for one in pair]
        items = [index.items[row] for row in rows]
        pairs.append(
            {
                "names": [item.name for item in items],
                "classes": [index.classes[item.label] for item in items],
                "splits": [sides[one] for one in pair],
            }
        )
    return {
        "pairs": pairs,
        "count": len(across),
        "same_split": len(found) - len(across),
        "truncated": truncated or len(across) > MAX_LISTED,
    }


def _advice(facts: dict[str, Any]) -> list[str]:
    advice = []
    if facts["problem"]:
        advice.append(facts["problem"])
    if facts["broken"]:
        count = len(facts["broken"])
        what = "is no sound image and is" if count == 1 else "are no sound images and are"
        advice.append(f"{count} of {plural(facts['images'], 'file')} {what} left out.")
    if conflicts := len(facts["label_conflicts"]):
        advice.append(
            f"Identical images lie in different classes ({plural(conflicts, 'time')}): "
            "decide which is right; until then all of their copies are left out."
        )
    if count := facts["near_duplicates"]["count"]:
        advice.append(
            f"{plural(count, 'pair')} of near-identical images would lie in "
            "different splits and flatter the result: remove one of each, or give the splits "
            "yourself."
        )
    if facts["imbalance"] and facts["imbalance"] >= _IMBALANCE:
        advice.append(
            f"The largest class has {facts['imbalance']:g} times the images of the smallest: "
            "search with --metric balanced_accuracy, or add images."
        )
    smallest = min(facts["classes"], key=lambda row: row["good"])
    if not facts["problem"] and smallest["good"] < _FEW_IMAGES:
        small = sum(row["good"] < _FEW_IMAGES for row in facts["classes"]) - 1
        others = f" (and {plural(small, 'other class')} fewer than {_FEW_IMAGES})" if small else ""
        advice.append(
            f"The class {smallest['name']!r} has only {plural(smallest['good'], 'sound image')}"
            f"{others}, where {_FEW_IMAGES} are few: a search takes the class, but can test it on "
            "hardly any, so expect wide intervals, and add images if you can."
        )
    sides = facts["dimensions"]
    if sides and min(sides["width"]["median"], sides["height"]["median"]) < _FEW_PIXELS:
        advice.append(
            f"The images are small ({sides['width']['median']} x {sides['height']['median']} "
            "pixels in the median): backbones meant for small images suit them."
        )
    return advice
