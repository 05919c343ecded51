"""Everything that is needed to run a study again: command, settings, versions, seeds, hashes."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from automl_tl.database_errors import redacted
from automl_tl.errors import AutoMLError
from automl_tl.identify import identify
from automl_tl.installed import package_version
from automl_tl.networks import network_spec
from automl_tl.plugins import get_plugins
from automl_tl.weights import is_published

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.cache.store import Store
    from automl_tl.study import StudyDirectory
    from automl_tl.study_config import Config
    from automl_tl.study_data import StudyData

PACKAGES = ("automl-tl", "optuna", "numpy", "pillow", "scikit-learn", "onnxruntime")
BACKBONES = 50
"""Of so many backbones the weights' hashes are listed."""


def again(
    directory: StudyDirectory, data: StudyData, store: Store, best: int | None
) -> dict[str, Any]:
    """Return how to run a study again and how to tell that it is the same one."""
    import tomli_w

    config = directory.config
    versions = {name: package_version(name) for name in PACKAGES}
    for key in config.backbones:
        versions |= _backend_versions(key)
    hashes = {"images, in order": data.dataset_hash, **_file_hash(directory.path / "split.csv")}
    for key in config.backbones[:BACKBONES]:
        hashes[f"weights of {key}"] = _weights(config, key, store)
    trained: Mapping[str, str] = {}
    if best is not None and directory.model(best).is_file():
        hashes |= {f"model of trial {best}": _sha256(directory.model(best))}
        try:
            trained = identify(directory.model(best)).facts.versions
        except AutoMLError:
            trained = {}
    return {
        "command": command(config, directory.bounds()),
        "options": tomli_w.dumps(options(config, directory.bounds())),
        "seed": config.seed,
        "versions": versions,
        "trained_with": dict(trained),
        "python": platform.python_version(),
        "system": platform.platform(),
        "hashes": hashes,
    }


def command(config: Config, bounds: Mapping[str, Any]) -> str:
    """Return the command that asks the same of a new study, quoted for a shell.

    The trials to begin with, and a range with a scale or a step of its own, have no place on a
    command line; they are read from ``search.toml``, see ``options``.
    """
    asked = options(config, bounds)
    settings = {name: _setting(value) for name, value in config.settings.items()}
    if config.first or None in settings.values():
        return "automl-tl search --config search.toml"
    words = ["automl-tl", "search", config.data]
    for name, value in asked.items():
        if name in {"backbone", "log"}:
            words += [word for one in value for word in (f"--{name}", one)]
        elif name == "weights":
            words += [
                word for key, file in value.items() for word in ("--weights", f"{key}={file}")
            ]
        elif name == "set":
            words += [word for key, text in settings.items() for word in ("--set", f"{key}={text}")]
        elif name == "plugins":
            words += [word for file in config.plugins for word in ("--plugin", file)]
        elif name != "data":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def options(config: Config, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same as the content of a file for ``--config``."""
    asked = {
        "data": config.data,
        "study": f"{config.name}-again",
        "trials": bounds.get("trials"),
        "time": _duration(bounds.get("time")),
        "target": bounds.get("target"),
        "trial_timeout": _duration(bounds.get("trial_timeout")),
        "backbone": list(config.backbones),
        "metric": config.metric,
        "seed": config.seed,
        "storage": redacted(config.storage) if config.storage else None,
        "weights": {key: file for key, file in config.weights.items() if not _published(key, file)},
        "set": dict(config.settings),
        "log": list(config.log),
        "first": [dict(one) for one in config.first],
        "plugins": {"files": list(config.plugins)} if config.plugins else None,
    }
    return {name: value for name, value in asked.items() if value not in (None, {}, [])}


def _duration(asked: Any) -> Any:
    return f"{asked:g}s" if isinstance(asked, (int, float)) else asked


def _published(key: str, file: str) -> bool:
    """Whether these are the weights that a backbone starts from anyway, on any machine."""
    backbone = get_plugins().backbones.get(key)
    return backbone is not None and is_published(backbone, file)


def _setting(value: Any) -> str | None:
    """Return a setting as ``--set`` takes it; None when it cannot say it."""
    if isinstance(value, Mapping):
        plain = set(value) == {"low", "high"}
        return f"{value['low']}..{value['high']}" if plain else None
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _backend_versions(backbone: str) -> dict[str, str]:
    try:
        packages = get_plugins().backend(backbone.partition("/")[0]).packages
        return {name: package_version(name) for name in packages}
    except AutoMLError:
        return {}


def _weights(config: Config, key: str, store: Store) -> str:
    try:
        backbone = get_plugins().backbone(key)
        size = backbone.input_size
        return network_spec(backbone, config.weights[key], size, config.seed, store).weights_id
    except AutoMLError as error:
        return str(error)


def _file_hash(path: Path) -> dict[str, str]:
    return {path.name: _sha256(path)} if path.is_file() else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
