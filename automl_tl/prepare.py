"""From what a person typed to a study on disk: data, weights, pixels, split, in this order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from automl_tl import metrics, networks, plugin_files
from automl_tl.artifacts import Artifacts
from automl_tl.devices import check_device
from automl_tl.errors import DataError, StudyError
from automl_tl.host import BackendHost
from automl_tl.intake import (
    check_sound,
    decode_arrays,
    image_sizes,
    in_order,
    open_data,
    read_images,
    small_images,
    stored_arrays,
)
from automl_tl.plugins import get_plugins
from automl_tl.published import Published, publish
from automl_tl.space import Space
from automl_tl.stages import silent
from automl_tl.storage import create_optuna
from automl_tl.study import StudyDirectory, check_free
from automl_tl.study_config import Config
from automl_tl.weights import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from automl_tl.asked import Asked
    from automl_tl.cache.store import Store
    from automl_tl.installed import Problem
    from automl_tl.networks import Networks
    from automl_tl.stages import Stage
    from automl_tl.study_data import StudyData
    from automl_tl.types import NetworkSpec

    Arrays = dict[tuple[int, str], tuple[Path, str]]
    Tell = Callable[[str], None]


def study_space(config: Config, tell: Tell | None = None) -> Space:
    """Return the search space of a study.

    Args:
        config: Of the study.
        tell: Receives a sentence for each plugin whose answer cannot be searched.

    Raises:
        UsageError: When a setting is wrong.
    """
    plugins = get_plugins()
    narrowed: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for key in config.backbones:
        if key in plugins.backbones:
            narrowed[key], wrong = plugins.search_space(plugins.backbone(key))
            problems += wrong
    if tell:
        for problem in dict.fromkeys(problems):
            tell(f"Plugin {problem.plugin}: {problem.message}")
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
    if asked.artifacts:
        Artifacts(asked.artifacts).make()
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
    study_data, arrays = read_images(index, space, config, store, tell, stage)
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
        StudyError: When the images are no longer those of the study, or some cannot be decoded.
    """
    sizes = image_sizes(study.config, study_space(study.config))
    found = stored_arrays(data, sizes, store)
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
    check_sound(data, prepared.broken)
    return arrays


def need_pixels(
    study: StudyDirectory,
    data: StudyData,
    store: Store,
    path: Path,
    step: Callable[[str, int, int], None],
) -> None:
    """Make sure that one of a study's pixel arrays is there, decoding what the cache lost.

    Raises:
        StudyError: When the images are no longer those of the study.
    """

    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        step(what, done, total)

    if not store.touch(path):
        open_arrays(study, data, store, stage)


def identities(specs: Mapping[tuple[str, int], NetworkSpec]) -> dict[str, str]:
    """Return the identity of each backbone's weights."""
    return {key: spec.weights_id for (key, _), spec in specs.items()}


def _backends(keys: Iterable[str]) -> set[str]:
    return {key.partition("/")[0] for key in keys}


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
