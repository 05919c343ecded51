"""``study.toml``: what was asked of a study, enough to ask it again."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from automl_tl.errors import StudyError
from automl_tl.files import read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Config:
    """What was asked of a study, resolved where that needed a look at the machine.

    Attributes:
        name: Of the study in its Optuna storage.
        data: What the person typed, absolute where it is a path.
        backbones: Keys, sorted.
        weights: A backbone's weights: ``imagenet`` or another published name, ``none`` or a path.
        settings: Parameters that the user fixed, narrowed or widened.
        metric: What is optimised.
        seed: Of the split, the sampler and the training.
        storage: Optuna URL; None for the journal in the directory.
        log: Names of the observers to tell.
        first: The trials to begin with, each a table of parameters.
        plugins: Plugin files that were loaded, absolute; named to people, never loaded from here.
        artifacts: Where the trials' files lie for other machines: a folder or ``s3://BUCKET/PATH``;
            None: in the directory only.
    """

    name: str
    data: str
    backbones: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    seed: int = 0
    storage: str | None = None
    log: tuple[str, ...] = ()
    first: tuple[Mapping[str, Any], ...] = ()
    plugins: tuple[str, ...] = ()
    artifacts: str | None = None


def read_config(path: Path) -> Config:
    """Read a study's ``study.toml``.

    Raises:
        StudyError: When it is damaged, or of another version.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise StudyError(f"{path} is damaged: {error}.") from None
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> Config:
    """Read what ``config_text`` wrote; ``where`` names it to people.

    Raises:
        StudyError: When it is damaged, or of another version.
    """
    try:
        document = tomllib.loads(text)
        if document["format"] != FORMAT:
            raise StudyError(
                f"{where} has format {document['format']}, expected {FORMAT}: it was written by "
                "another version of automl-tl."
            )
        backbones = tuple(map(str, document["backbones"]))
        weights = {key: str(value) for key, value in document["weights"].items()}
        if bare := [key for key in backbones if key not in weights]:
            raise ValueError(f"no weights are named for {bare[0]!r}")
        return Config(
            name=str(document["name"]),
            data=str(document["data"]),
            backbones=backbones,
            weights=weights,
            settings=dict(document["set"]),
            metric=str(document["metric"]),
            seed=int(document["seed"]),
            storage=_optional(document, "storage"),
            log=tuple(map(str, document.get("log", ()))),
            first=tuple(dict(one) for one in document.get("first", ())),
            plugins=tuple(map(str, document.get("plugins", {"files": ()})["files"])),
            artifacts=_optional(document, "artifacts"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{where} is damaged: {error}.") from None


def _optional(document: Mapping[str, Any], name: str) -> str | None:
    return str(document[name]) if name in document else None


def write_config(path: Path, config: Config) -> None:
    """Write a study's ``study.toml``, aside and renamed.

    Raises:
        OSError: When it cannot be written.
    """
    write_text(path, config_text(config))


def config_text(config: Config) -> str:
    """Return a study's configuration as TOML."""
    import tomli_w

    document = {
        "format": FORMAT,
        "name": config.name,
        "data": config.data,
        "backbones": list(config.backbones),
        "metric": config.metric,
        "seed": config.seed,
        **({"storage": config.storage} if config.storage else {}),
        **({"artifacts": config.artifacts} if config.artifacts else {}),
        **({"log": list(config.log)} if config.log else {}),
        **({"plugins": {"files": list(config.plugins)}} if config.plugins else {}),
        "weights": dict(config.weights),
        "set": dict(config.settings),
        **({"first": [dict(one) for one in config.first]} if config.first else {}),
    }
    return tomli_w.dumps(document)
