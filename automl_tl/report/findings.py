"""What is to be said of a study's data: broken files, copies, look-alikes, imbalance."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.data import near_duplicates
from automl_tl.data.reading import in_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from automl_tl.report.images import Images
    from automl_tl.study_data import StudyData

LISTED = 50
GROUPS = 20
LOOK_ALIKES = 12
MAX_COMPARED = 5000
"""Images that are compared for looking alike; more would take longer than the rest of a report."""


def findings(data: StudyData, images: Images) -> dict[str, Any]:
    """Return what a person should know of the data before trusting a figure."""
    counts = data.counts()
    sizes = [sum(row.values()) for row in counts.values()]
    broken = list(data.facts.get("broken", []))
    copies = _copies(data)
    mixed = [group for group in copies if len({one["class"] for one in group}) > 1]
    return {
        "images": len(data.names),
        "used": int(sum(sizes)),
        "splits": {
            split: sum(row[split] for row in counts.values())
            for split in ("train", "validation", "test")
        },
        "classes": _classes(counts),
        "class_count": len(counts),
        "imbalance": round(max(sizes) / min(sizes), 2) if all(sizes) else None,
        "median_side": data.facts.get("median_side"),
        "broken": broken[:LISTED],
        "broken_count": len(broken),
        "copies": copies[:GROUPS],
        "copies_count": len(copies),
        "mixed": mixed[:GROUPS],
        "mixed_count": len(mixed),
        "look_alikes": _look_alikes(data, images),
        "notes": [str(note) for note in data.facts.get("notes", [])][:LISTED],
    }


def _classes(counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return images a class; of very many classes the smallest."""
    rows: list[dict[str, Any]] = [
        {"name": name, **row, "all": sum(row.values())} for name, row in counts.items()
    ]
    return rows if len(rows) <= LISTED else sorted(rows, key=lambda row: row["all"])[:LISTED]


def _copies(data: StudyData) -> list[list[dict[str, Any]]]:
    """Return groups of files with the same bytes, the largest first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(data.hashes):
        if digest:
            groups[digest].append(row)
    broken = {str(one["name"]) for one in data.facts.get("broken", [])}
    copies = [
        [
            {
                "name": data.names[row],
                "class": data.classes[data.labels[row]],
                "split": data.splits[row] or "left out",
            }
            for row in rows
        ]
        for rows in groups.values()
        if len(rows) > 1 and not any(data.names[row] in broken for row in rows)
    ]
    return sorted(copies, key=len, reverse=True)


def _look_alikes(data: StudyData, images: Images) -> dict[str, Any]:
    """Return pairs of images in different splits that look nearly the same.

    Each flatters the test figure a little: the model has practically seen the image.

    Returns:
        ``pairs`` (``rows``, ``names``, ``classes``, ``splits``), ``count``, ``truncated``;
        ``problem`` says why nothing was compared, or None.
    """
    first = {data.hashes[row]: row for row in range(len(data.names))[::-1] if data.splits[row]}
    used = sorted(first.values())  # of copies, the first stands for all
    if len(used) > MAX_COMPARED:
        return _nothing(
            f"{len(used)} images were not compared with one another, because that takes long: "
            "`automl-tl data check` does it."
        )
    grids: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    for row, grid in zip(used, in_threads(lambda row: _grid(images, row), used), strict=True):
        if grid is not None:
            grids.append(grid)
            rows.append(row)
    if not grids:
        return _nothing(images.problem or "No image could be read, so none were compared.")
    found, truncated = near_duplicates.find_pairs(np.stack(grids))
    sides = [data.splits[row] for row in rows]
    across = near_duplicates.across(found, sides)
    test = np.array([side == "test" for side in sides])[across]
    shown = np.argsort(~test.any(axis=1), kind="stable")[:LOOK_ALIKES]
    pairs = [[rows[one] for one in pair] for pair in across[shown]]
    return {
        "pairs": [
            {
                "rows": pair,
                "names": [data.names[row] for row in pair],
                "classes": [data.classes[data.labels[row]] for row in pair],
                "splits": [data.splits[row] for row in pair],
            }
            for pair in pairs
        ],
        "count": len(across),
        "tested": len(np.unique(across[test])),
        "truncated": truncated,
        "problem": None,
    }


def _grid(images: Images, row: int) -> NDArray[np.uint8] | None:
    square = images.square(row)
    return None if square is None else near_duplicates.cells(square)


def _nothing(problem: str) -> dict[str, Any]:
    return {"pairs": [], "count": 0, "tested": 0, "truncated": False, "problem": problem}
