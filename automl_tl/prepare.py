"""From what a person typed to a study on disk: data, weights, pixels, split, in this order."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import metrics, networks, plugin_files
from automl_tl.cache import pixels
from automl_tl.data import near_duplicates, sources, split
from automl_tl.data.decode import header_size
from automl_tl.devices import check_device
from automl_tl.errors import DataError, StudyError
from automl_tl.host import BackendHost
from automl_tl.plugins import get_plugins
from automl_tl.published import Published, publish
from automl_tl.space import Space
from automl_tl.stages import silent
from automl_tl.storage import create_optuna
from automl_tl.study import StudyDirectory, check_free
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.units import are, plural
from automl_tl.weights import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from automl_tl.asked import Asked
    from automl_tl.cache.store import Store
    from automl_tl.data.index import DataIndex
    from automl_tl.networks import Networks
    from automl_tl.stages import Stage
    from automl_tl.types import NetworkSpec

    Arrays = dict[tuple[int, str], tuple[Path, str]]
    Tell = Callable[[str], None]

SMALL_SIDE = 64
_SAMPLE = 64
_NAMED = 50


def study_space(config: Config) -> Space:
    """Return the search space of a study.

    Raises:
        UsageError: When a setting is wrong.
    """
    plugins = get_plugins()
    narrowed = {
        key: plugins.search_space(plugins.backbone(key))
        for key in config.backbones
        if key in plugins.backbones
    }
    return Space(config.backbones, config.settings, narrowed, config.first)


def new_study(
    path: Path,
    asked: Asked,
    *,
    store: Store,
    tell: Tell,
    stage: Stage,
    deadline: float,
    again: bool = True,
) -> tuple[StudyDirectory, StudyData, Networks]:
    """Create a study: open the data, choose backbones, decode, split, write.

    Everything that can be wrong with the arguments is found before any costly work. Downloading
    a named data set takes at most half of the time until the ``deadline``, on ``time.monotonic()``;
    weights take at most half of what is left then.

    Args:
        path: Of the study directory.
        asked: What was asked, checked.
        store: The cache.
        tell: Receives sentences for the person.
        stage: Told how far it is.
        deadline: When the search ends.
        again: Whether a study whose creation was killed half-way may lie in the storage.

    Raises:
        Overtaken: When another machine created the study meanwhile.
        AutoMLError: One sentence about what is wrong; no study is left behind.
    """
    check_free(path)
    plugins = get_plugins()
    for problem in plugins.problems:
        tell(f"Plugin {problem.plugin}: {problem.message}")
    index = open_data(asked.data, store, stage, deadline)
    for note in index.notes:
        tell(note)
    with ExitStack() as stack:
        hosts: dict[str, BackendHost] = {}

        def host(name: str) -> BackendHost:
            if name not in hosts:
                hosts[name] = stack.enter_context(BackendHost(name, asked.device))
            return hosts[name]

        small = small_images(index)
        chosen = networks.choose_backbones(
            asked.backbones, asked.weights, small, tell, deadline, stage
        )
        check_device(asked.device, _backends(chosen), host)
        config = Config(
            name=path.name,
            data=index.source,
            backbones=tuple(sorted(chosen)),
            weights=chosen,
            settings=dict(asked.settings),
            metric=asked.metric,
            seed=asked.seed,
            storage=asked.storage,
            log=tuple(dict.fromkeys(asked.log)),
            first=tuple(dict(one) for one in asked.first),
            plugins=tuple(map(str, plugin_files.listed())),
            artifacts=asked.artifacts,
        )
        space = study_space(config)
        specs = network_specs(config, space, store)
        for (key, _), spec in specs.items():
            published = plugins.backbone(key).pretrained
            if spec.weights and not (published and spec.weights == location(published)):
                # A stranger's file is tried before any work is done.
                host(plugins.backbone(key).backend).describe(spec)
    study_data, arrays = _read(index, space, config, store, tell, stage)
    path.mkdir(parents=True, exist_ok=True)
    direction = metrics.DIRECTIONS[config.metric]
    optuna_study = create_optuna(path, asked.storage, config.name, direction, again=again)
    study = StudyDirectory.create(path, config, study_data)
    if asked.storage is not None:
        publish(optuna_study, Published(config, study_data, identities(specs)))
    return study, study_data, networks.Networks(specs, arrays)


def open_networks(
    study: StudyDirectory,
    data: StudyData,
    device: str,
    store: Store,
    stage: Stage,
    deadline: float = float("inf"),
) -> Networks:
    """Find a study's weights and pixel arrays again, decoding what the cache lost.

    What must be downloaded again for that takes at most half of the time until the ``deadline``.

    Raises:
        UsageError: When this machine has no such device.
        StudyError: When the images are no longer those of the study.
        WeightsError: When a weights file has gone.
    """
    with ExitStack() as stack:
        backends = _backends(study.config.backbones)
        check_device(device, backends, lambda name: stack.enter_context(BackendHost(name, device)))
    space = study_space(study.config)
    specs = network_specs(study.config, space, store)
    return networks.Networks(specs, open_arrays(study, data, store, stage, deadline))


def open_arrays(
    study: StudyDirectory,
    data: StudyData,
    store: Store,
    stage: Stage | None = None,
    deadline: float = float("inf"),
) -> Arrays:
    """Find a study's pixel arrays, decoding what the cache lost.

    Raises:
        StudyError: When the images are no longer those of the study.
    """
    sizes = image_sizes(study.config, study_space(study.config))
    found: Arrays = {}
    for resize, wanted in sizes.items():
        for size in wanted:
            facts = pixels.key(data.dataset_hash, size, resize)
            if entry := store.find(pixels.KIND, facts):
                found[size, resize] = (entry.path, pixels.identity(facts))
    if len(found) == sum(map(len, sizes.values())):
        return found
    try:
        index = open_data(study.config.data, store, stage or silent, deadline)
    except DataError as error:
        raise StudyError(
            f"The images of the study {study.name} are needed again, because the cache no "
            f"longer has them, but they are not where they were: {error}"
        ) from None
    arrays, _, prepared = decode_arrays(in_order(index, data.names), sizes, store, stage)
    if prepared.dataset_hash != data.dataset_hash:
        raise StudyError(
            f"The images in {study.config.data} have changed since the study "
            f"{study.name} began: put them back, or start a new study."
        )
    return arrays


def open_data(data: str, store: Store, stage: Stage, deadline: float) -> DataIndex:
    """Open a data set; downloading it takes at most half of the time until the deadline."""
    now = time.monotonic()
    until = now + (deadline - now) / 2
    return sources.open_data(data, store.root, get_plugins().datasets, stage, until)


def decode_arrays(
    index: DataIndex, sizes: Mapping[Any, list[int]], store: Store, stage: Stage | None
) -> tuple[Arrays, int, pixels.Pixels]:
    """Return all pixel arrays, the number of images decoded now, and the images' facts."""
    arrays: Arrays = {}
    decoded = 0
    for resize, wanted in sizes.items():
        prepared = pixels.prepare(index, wanted, resize, store, stage)
        decoded += prepared.decoded
        for size, path in prepared.paths.items():
            facts = pixels.key(prepared.dataset_hash, size, resize)
            arrays[size, resize] = (path, pixels.identity(facts))
    return arrays, decoded, prepared


def identities(specs: Mapping[tuple[str, int], NetworkSpec]) -> dict[str, str]:
    """Return the identity of each backbone's weights."""
    return {key: spec.weights_id for (key, _), spec in specs.items()}


def in_order(index: DataIndex, names: Sequence[str]) -> DataIndex:
    """Return a data set with its images in a study's order; as it is when there are others.

    A study that was joined has the order of the machine that began it.
    """
    items = {item.name: item for item in index.items}
    if len(items) != len(names) or not items.keys() >= set(names):
        return index
    return replace(index, items=tuple(items[name] for name in names))


def _backends(keys: Iterable[str]) -> set[str]:
    return {key.partition("/")[0] for key in keys}


def _read(
    index: DataIndex, space: Space, config: Config, store: Store, tell: Tell, stage: Stage
) -> tuple[StudyData, Arrays]:
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


def image_sizes(config: Config, space: Space) -> dict[Any, list[int]]:
    """Return the image sizes to decode, a resize rule."""
    plugins = get_plugins()
    wanted: dict[Any, set[int]] = {}
    for key in config.backbones:
        for resize in space.values("resize", key):
            sizes = networks.image_sizes(space, plugins.backbone(key))
            wanted.setdefault(resize, set()).update(sizes)
    return {resize: sorted(sizes) for resize, sizes in sorted(wanted.items())}


def network_specs(config: Config, space: Space, store: Store) -> dict[tuple[str, int], NetworkSpec]:
    """Return a network for every backbone and image size of a study."""
    plugins = get_plugins()
    return {
        (key, size): networks.network_spec(
            plugins.backbone(key), config.weights[key], size, config.seed, store
        )
        for key in config.backbones
        for size in networks.image_sizes(space, plugins.backbone(key))
    }


def small_images(index: DataIndex) -> bool:
    """Whether the median of a sample's shorter sides is at most 64 pixels; reads headers only."""
    step = max(1, len(index.items) // _SAMPLE)
    sides = [
        min(size) for item in index.items[::step] if (size := header_size(item.path)) is not None
    ]
    return bool(sides) and sorted(sides)[len(sides) // 2] <= SMALL_SIDE
