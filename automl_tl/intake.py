"""The images of a study: opened, decoded once, split."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import networks
from automl_tl.cache import pixels
from automl_tl.data import near_duplicates, sources, split
from automl_tl.data.decode import header_size
from automl_tl.errors import DataError, StudyError
from automl_tl.plugins import get_plugins
from automl_tl.study_data import StudyData
from automl_tl.units import are, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from automl_tl.cache.store import Store
    from automl_tl.data.index import DataIndex
    from automl_tl.space import Space
    from automl_tl.stages import Stage
    from automl_tl.study_config import Config

    Arrays = dict[tuple[int, str], tuple[Path, str]]
    Tell = Callable[[str], None]

SMALL_SIDE = 64
_SAMPLE = 64
_NAMED = 50


def open_data(data: str, store: Store, stage: Stage, deadline: float) -> DataIndex:
    """Open a data set; downloading it takes at most half of the time until the deadline."""
    now = time.monotonic()
    until = now + (deadline - now) / 2
    return sources.open_data(data, store.root, get_plugins().datasets, stage, until)


def small_images(index: DataIndex) -> bool:
    """Whether the median of a sample's shorter sides is at most 64 pixels; reads headers only."""
    step = max(1, len(index.items) // _SAMPLE)
    sides = [
        min(size) for item in index.items[::step] if (size := header_size(item.path)) is not None
    ]
    return bool(sides) and sorted(sides)[len(sides) // 2] <= SMALL_SIDE


def in_order(index: DataIndex, names: Sequence[str]) -> DataIndex:
    """Return a data set with its images in a study's order; as it is when there are others.

    A study that was joined has the order of the machine that began it.
    """
    items = {item.name: item for item in index.items}
    if len(items) != len(names) or not items.keys() >= set(names):
        return index
    return replace(index, items=tuple(items[name] for name in names))


def image_sizes(config: Config, space: Space) -> dict[Any, list[int]]:
    """Return the image sizes to decode, a resize rule."""
    plugins = get_plugins()
    wanted: dict[Any, set[int]] = {}
    for key in config.backbones:
        for resize in space.values("resize", key):
            sizes = networks.image_sizes(space, plugins.backbone(key))
            wanted.setdefault(resize, set()).update(sizes)
    return {resize: sorted(sizes) for resize, sizes in sorted(wanted.items())}


def decode_arrays(
    index: DataIndex,
    sizes: Mapping[Any, list[int]],
    store: Store,
    stage: Stage | None,
    files: pixels.Files | None = None,
) -> tuple[Arrays, int, pixels.Pixels]:
    """Return all pixel arrays, the number of images decoded now, and the images' facts.

    The files are hashed once, unless their hashes are given.
    """
    files = files or pixels.read_files(index, stage)
    arrays: Arrays = {}
    decoded = 0
    for resize, wanted in sizes.items():
        prepared = pixels.prepare(index, wanted, resize, store, stage, files=files)
        decoded += prepared.decoded
        for size, path in prepared.paths.items():
            facts = pixels.key(prepared.dataset_hash, size, resize)
            arrays[size, resize] = (path, pixels.identity(facts))
    return arrays, decoded, prepared


def stored_arrays(data: StudyData, sizes: Mapping[Any, list[int]], store: Store) -> Arrays:
    """Return the pixel arrays of a study that are stored, and delete those that lack images of it.

    Such were decoded where a format was not known, say, and must be decoded anew.
    """
    found: Arrays = {}
    for resize, wanted in sizes.items():
        for size in wanted:
            facts = pixels.key(data.dataset_hash, size, resize)
            entry = store.find(pixels.KIND, facts)
            if entry and _lost(data, map(int, entry.meta["broken"])):
                store.discard(entry)
            elif entry:
                found[size, resize] = (entry.path, pixels.identity(facts))
    return found


def check_sound(data: StudyData, broken: Mapping[int, str]) -> None:
    """Raise ``StudyError`` when images of a study's splits cannot be used.

    Args:
        data: Of the study.
        broken: Reason by row of every image that cannot be decoded here.
    """
    if lost := _lost(data, broken):
        named = "; ".join(f"{data.names[row]} ({broken[row]})" for row in lost[:_NAMED])
        more = f"; and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        raise StudyError(
            f"Expected to decode all images that the study was begun with, but "
            f"{plural(len(lost), 'image')} cannot be decoded here: {named}{more}. Install the "
            "Pillow that the study was begun with, or start a new study without them."
        )


def _lost(data: StudyData, broken: Iterable[int]) -> list[int]:
    return [row for row in sorted(broken) if data.splits[row]]


def read_images(
    index: DataIndex, space: Space, config: Config, store: Store, tell: Tell, stage: Stage
) -> tuple[StudyData, Arrays]:
    """Decode and split a data set, saying what a person should know of it.

    Raises:
        DataError: When none of its images can be used, or they cannot be split.
    """
    arrays, decoded, prepared = decode_arrays(index, image_sizes(config, space), store, stage)
    broken = [
        {"name": index.items[row].name, "reason": reason}
        for row, reason in sorted(prepared.broken.items())
    ]
    if broken:
        named = "; ".join(f"{one['name']} ({one['reason']})" for one in broken[:_NAMED])
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        count = len(broken)
        tell(f"{plural(count, 'image')} {are(count)} left out: {named}{more}.")
    hashes = [
        "" if row in prepared.broken else digest for row, digest in enumerate(prepared.hashes)
    ]
    labels = [item.label for item in index.items]
    good = Counter(label for label, digest in zip(labels, hashes, strict=True) if digest)
    if not good:
        raise DataError(f"None of the {len(labels)} files in {index.source} is a usable image.")
    result = split.assign(
        labels,
        hashes,
        [item.split for item in index.items],
        config.seed,
        classes=index.classes,
        names=[item.name for item in index.items],
    )
    squares = np.load(next(iter(prepared.paths.values())), mmap_mode="r")
    near = near_duplicates.count_across(squares, hashes, result.splits)
    notes = [*result.notes, *_copies(hashes, result.splits)]
    for note in notes:
        tell(note)
    if near:
        check = f"automl-tl data check {shlex.quote(index.source)}"
        tell(
            f"{plural(near, 'pair')} of near-identical images {are(near)} in different splits and "
            f"may flatter the figures: `{check}` lists them."
        )
    facts = {
        "source": index.source,
        "images": len(index.items),
        "decoded": decoded,
        "median_side": prepared.median_side,
        "broken": broken,
        "near_duplicates": near,
        "notes": [*index.notes, *notes],
    }
    data = StudyData(
        classes=index.classes,
        names=tuple(item.name for item in index.items),
        labels=np.array(labels, dtype=np.int64),
        splits=result.splits,
        hashes=prepared.hashes,
        dataset_hash=prepared.dataset_hash,
        facts=facts,
    )
    return data, arrays


def _copies(hashes: Sequence[str], splits: Sequence[str | None]) -> list[str]:
    """Return the sentence on images that occur more than once, if there are any."""
    kept = [digest for digest, split in zip(hashes, splits, strict=True) if split]
    if not (count := len(kept) - len(set(kept))):
        return []
    return [f"{plural(count, 'file')} {are(count)} an exact copy of another, kept in its split."]
