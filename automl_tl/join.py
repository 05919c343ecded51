"""A machine joins a study that another began, with its own copy of the same images.

What the study is comes from its database; the images are known by their content, so that two
machines with different ones cannot mix, whatever the files are called.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from automl_tl import intake, networks, plugin_files, prepare
from automl_tl.artifacts import Artifacts
from automl_tl.cache import pixels
from automl_tl.database_errors import place
from automl_tl.errors import StudyError, UsageError
from automl_tl.plugins import get_plugins
from automl_tl.published import read_published
from automl_tl.storage import Overtaken, find_optuna, sqlite_absolute
from automl_tl.study import CONFIG, StudyDirectory, StudyExists, check_free
from automl_tl.units import are, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from automl_tl.asked import Asked
    from automl_tl.cache.store import Store
    from automl_tl.data.index import DataIndex
    from automl_tl.networks import Networks
    from automl_tl.published import Published
    from automl_tl.stages import Stage
    from automl_tl.study_config import Config
    from automl_tl.study_data import StudyData

CREATION_SECONDS = 15.0
"""How long to wait for a study that another machine is creating at the moment."""
_NAMED = 3
_TRIES = 3


def create_or_join(
    path: Path,
    asked: Asked,
    *,
    store: Store,
    tell: Callable[[str, str], None],
    stage: Stage,
    deadline: float,
) -> tuple[StudyDirectory, StudyData, Networks | None]:
    """Create a study, or join the one of its name that its database holds already.

    Args:
        path: Of the study directory.
        asked: What was asked.
        store: The cache.
        tell: Receives sentences for the person, each a ``warning`` or a ``note``.
        stage: Told how far it is.
        deadline: See ``prepare.new_study``.

    Raises:
        AutoMLError: One sentence about what is wrong; nothing is left behind.
    """
    asked.check()

    def warn(text: str) -> None:
        tell(text, "warning")

    new = partial(
        prepare.new_study, path, asked, store=store, tell=warn, stage=stage, deadline=deadline
    )
    if asked.storage is None:
        return new()
    for _ in range(_TRIES):
        try:
            if there := reopen(path, asked):
                return there, there.data(), None
            check_free(path)
            begun, published = find(path, asked.storage)
            if published is None:
                return new(again=begun)
            tell(f"Joining the study {path.name!r} in {place(asked.storage)}.", "note")
            return join_study(
                path, asked, published, store=store, tell=warn, stage=stage, deadline=deadline
            )
        except (Overtaken, StudyExists):
            continue  # by another machine, or by another search in the same folder
    raise StudyError(
        f"The study {path.name!r} in {place(asked.storage)} comes and goes: try again."
    )


def find(path: Path, url: str, wait: float = 0.0) -> tuple[bool, Published | None]:
    """Look for a study of the directory's name in a database.

    Args:
        path: Of the study directory.
        url: Of the database.
        wait: Seconds to wait for a study that is not there yet.

    Returns:
        Whether it is there, and what was published of it; nothing when its creation was killed
        half-way.

    Raises:
        StudyError: When the database cannot be used.
    """
    end = time.monotonic() + wait
    while True:
        study = find_optuna(path, url, path.name)
        published = read_published(study) if study else None
        if published:
            return True, published
        if study and time.monotonic() > end + CREATION_SECONDS:
            if not study.get_trials(deepcopy=False):
                return True, None
            raise StudyError(
                f"The storage {place(url)} holds a study {path.name!r} that is no study of "
                "automl-tl: choose another name with --study."
            )
        if study is None and time.monotonic() >= end:
            return False, None
        time.sleep(0.5)


def await_study(path: Path, storage: str, seconds: float) -> None:
    """Wait until a study of the directory's name is there.

    Raises:
        StudyError: When it is not in time, or the database cannot be used.
    """
    url = str(sqlite_absolute(storage))
    if (path / CONFIG).is_file() or find(path, url, seconds)[1]:
        return
    raise StudyError(
        f"There is no study {path.name!r} in {place(url)} after {format_duration(seconds)}: begin "
        f"it with `automl-tl search DATA --storage URL --study {path.name}`."
    )


def reopen(path: Path, asked: Asked) -> StudyDirectory | None:
    """Return the study directory that is there and belongs to the same study, None without one.

    Raises:
        UsageError: When something else was asked for than the study is.
        StudyError: When another study is there, or it is damaged.
    """
    if not (path / CONFIG).is_file():
        return None
    study = StudyDirectory.open(path)
    if study.config.storage != asked.storage:
        raise StudyError(
            f"The study in {path} is another one, in "
            f"{place(study.config.storage) if study.config.storage else 'a file of its own'}: "
            "choose another name with --study."
        )
    _check_same(asked, study.config)
    return study


def join_study(
    path: Path,
    asked: Asked,
    published: Published,
    *,
    store: Store,
    tell: Callable[[str], None],
    stage: Stage,
    deadline: float,
) -> tuple[StudyDirectory, StudyData, Networks]:
    """Make a study directory for a study that another machine began.

    Args:
        path: Of the directory.
        asked: What was asked here; what is left at its default is the study's.
        published: What the study is.
        store: The cache.
        tell: Receives sentences for the person.
        stage: Told how far it is.
        deadline: See ``prepare.new_study``.

    Raises:
        AutoMLError: One sentence about what differs here; no directory is left behind.
    """
    check_free(path)
    _check_same(asked, published.config)
    artifacts = asked.artifacts or published.config.artifacts
    if artifacts:
        Artifacts(artifacts).check()
    index = intake.open_data(asked.data, store, stage, deadline)
    index, files = _same_images(index, published, stage)
    weights = {key: "none" for key, w in published.config.weights.items() if w == "none"}
    chosen = networks.choose_backbones(
        published.config.backbones,
        {**weights, **asked.weights},
        small_images=False,
        tell=tell,
        deadline=deadline,
        stage=stage,
    )
    _check_backbones(set(chosen), published)
    config = replace(
        published.config,
        data=index.source,
        weights=chosen,
        storage=asked.storage,
        log=tuple(dict.fromkeys(asked.log)),
        plugins=tuple(map(str, plugin_files.listed())),
        artifacts=artifacts,
    )
    space = prepare.study_space(config)
    specs = prepare.network_specs(config, space, store)
    _check_weights(prepare.identities(specs), published)
    sizes = intake.image_sizes(config, space)
    data = replace(published.data, names=tuple(item.name for item in index.items))
    intake.stored_arrays(data, sizes, store)  # of which the unsound go
    arrays, decoded, prepared = intake.decode_arrays(index, sizes, store, stage, files)
    intake.check_sound(data, prepared.broken)
    facts = {**data.facts, "source": index.source, "decoded": decoded}
    data = replace(data, facts=facts)
    study = StudyDirectory.create(path, config, data)
    return study, data, networks.Networks(specs, arrays)


def _check_same(asked: Asked, config: Config) -> None:
    """Raise ``UsageError`` when options were given that make another study."""
    plugins = get_plugins()
    wanted = {b.key for pattern in asked.backbones for b in plugins.match(pattern)}
    given = {
        "--backbone": bool(wanted) and wanted != set(config.backbones),
        "--set": bool(asked.settings) and dict(asked.settings) != dict(config.settings),
        "--metric": asked.metric not in ("accuracy", config.metric),
        "--seed": asked.seed not in (0, config.seed),
        "[[first]]": bool(asked.first) and list(map(dict, asked.first)) != list(config.first),
    }
    other = [option for option, differs in given.items() if differs]
    if other:
        raise UsageError(
            f"The study {config.name!r} is there already and was begun with another "
            f"{' and '.join(other)}: leave {'it' if len(other) == 1 else 'them'} out to join it, "
            "or choose another name with --study."
        )


def _same_images(
    index: DataIndex, published: Published, stage: Stage
) -> tuple[DataIndex, pixels.Files]:
    """Return the images here in the study's order, each known by class and content."""
    here: defaultdict[tuple[str, str], deque[int]] = defaultdict(deque)
    files = pixels.read_files(index, stage)
    for row, digest in enumerate(files.hashes):
        here[index.classes[index.items[row].label], digest].append(row)
    data = published.data
    rows, missing = [], []
    for name, label, digest in zip(data.names, data.labels, data.hashes, strict=True):
        same = here[data.classes[label], digest]
        if same:
            rows.append(same.popleft())
        else:
            missing.append(name)
    others = sum(map(len, here.values()))
    if missing or others:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        what = [
            f"{plural(len(missing), 'image')} of it {are(len(missing))} not here ({named})"
            if missing
            else "",
            f"{plural(others, 'image')} here {are(others)} not in it" if others else "",
        ]
        raise StudyError(
            f"{index.source} is not the data of the study {published.config.name!r}, which has "
            f"{plural(len(data.names), 'image')}: {' and '.join(filter(None, what))}. Every "
            "machine needs the same files in the same classes, whatever they are called."
        )
    labels = map(int, data.labels)
    items = (replace(index.items[row], label=n) for row, n in zip(rows, labels, strict=True))
    return replace(index, classes=data.classes, items=tuple(items)), files.of(rows)


def _check_backbones(chosen: set[str], published: Published) -> None:
    missing = sorted(set(published.config.backbones) - chosen)
    if missing:
        raise UsageError(
            f"The study {published.config.name!r} searches {', '.join(missing)}, whose weights "
            f"are not on this machine: give them with --weights {missing[0]}=PATH."
        )


def _check_weights(identities: dict[str, str], published: Published) -> None:
    other = [key for key, known in identities.items() if published.weights.get(key) != known]
    if other:
        raise UsageError(
            f"The weights of {', '.join(other)} here are not those that the study "
            f"{published.config.name!r} was begun with: give the same file with --weights "
            f"{other[0]}=PATH."
        )
