"""The options of a search: from the command line, from a TOML file, checked before work begins."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from automl_tl.errors import UsageError
from automl_tl.metrics import DIRECTIONS
from automl_tl.settings import domain, parse_setting
from automl_tl.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What ``automl-tl search`` understands; None stands for "not given".

    Attributes:
        data: Folder, file or name of the data.
        study: Name or path of the study.
        trials: Bound on the number of trials.
        time: Bound on wall-clock time, in seconds.
        target: Value at which to stop.
        trial_timeout: Bound on the wall-clock time of a single trial, in seconds.
        backbone: Globs.
        weights: Weights by backbone.
        set: Fixed, narrowed or widened parameters.
        metric: What to optimise.
        seed: Seed of everything.
        workers: Number of workers in all.
        workers_per_device: Number of workers that share each device, instead.
        device: ``auto``, ``cpu``, ``mps`` or ``cuda:N``.
        engine: Name of an engine.
        address: Of a cluster, for an engine that takes it.
        gpus_per_trial: GPUs a worker, for an engine that takes it.
        storage: Optuna storage URL.
        artifacts: Folder or ``s3://BUCKET/PATH`` for the trials' files.
        log: Names of observers.
        first: Trials to begin with; a file's only.
        plugins: Plugin files, absolute; a file's only.
    """

    data: str | None = None
    study: str | None = None
    trials: int | None = None
    time: float | None = None
    target: float | None = None
    trial_timeout: float | None = None
    backbone: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    seed: int | None = None
    workers: int | None = None
    workers_per_device: int | None = None
    device: str | None = None
    engine: str | None = None
    address: str | None = None
    gpus_per_trial: float | None = None
    storage: str | None = None
    artifacts: str | None = None
    log: tuple[str, ...] = ()
    first: tuple[Mapping[str, Any], ...] = ()
    plugins: tuple[str, ...] = ()

    def over(self, other: SearchOptions) -> SearchOptions:
        """Return these options, with ``other`` where they say nothing.

        Single weights and parameters are merged; a list of backbones or observers replaces the
        other.
        """
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in mine.items() if value not in (None, (), {})}
        given["weights"] = {**other.weights, **self.weights}
        given["set"] = {**other.set, **self.set}
        return replace(other, **given)

    def engine_options(self) -> dict[str, Any]:
        """Return what was given for the engine."""
        given = {"address": self.address, "gpus_per_trial": self.gpus_per_trial}
        return {name: value for name, value in given.items() if value is not None}

    def check(self) -> None:
        """Raise ``UsageError`` for the first option that cannot be right."""
        for name in ("trials", "workers", "workers_per_device"):
            count = getattr(self, name)
            if count is not None and count < 1:
                option = name.replace("_", "-")
                raise UsageError(f"Expected --{option} to be at least 1, got {count}.")
        if self.workers is not None and self.workers_per_device is not None:
            raise UsageError(
                f"Expected --workers or --workers-per-device, got {self.workers} in all and "
                f"{self.workers_per_device} a device: give one of them."
            )
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise UsageError(f"Expected --seed from 0 to {2**32 - 1}, got {self.seed}.")
        self._check_metric()
        if self.device is not None and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise UsageError(
                f"Expected --device auto, cpu, mps or cuda:0, got {self.device!r}; "
                "`automl-tl doctor` lists the devices."
            )
        if self.storage is not None and "://" not in self.storage:
            raise UsageError(
                "Expected --storage to be a URL such as sqlite:///study.db or "
                f"postgresql+psycopg://user@host/name, got {self.storage!r}."
            )

    def _check_metric(self) -> None:
        metric = self.metric or "accuracy"
        if metric not in DIRECTIONS:
            hint = _suggestion(metric, tuple(DIRECTIONS), "choose")
            raise UsageError(f"Unknown metric {metric!r}: {hint}")
        if self.target is None:
            return
        if metric == "log_loss":
            if not self.target >= 0:
                raise UsageError(f"Expected --target to be at least 0, got {self.target:g}.")
        elif not 0 < self.target <= 1:
            raise UsageError(
                f"Expected --target above 0 and at most 1 (0.98 is 98 %), got {self.target:g}."
            )


def from_flags(
    *,
    time: str | None,
    trial_timeout: str | None = None,
    backbone: Sequence[str] = (),
    weights: Sequence[str] = (),
    set_: Sequence[str] = (),
    log: Sequence[str] = (),
    **plain: Any,
) -> SearchOptions:
    """Return the options of the command line.

    Args:
        time: As typed.
        trial_timeout: As typed.
        backbone: Globs.
        weights: ``KEY=VALUE`` each.
        set_: ``NAME=VALUE`` each.
        log: Names of observers.
        plain: The other options.

    Raises:
        UsageError: For a form that is not understood.
    """
    return SearchOptions(
        backbone=tuple(backbone),
        weights=dict(_pair("--weights", "KEY=none|PATH|URL", text) for text in weights),
        set=dict(parse_setting(text) for text in set_),
        log=tuple(log),
        time=None if time is None else duration(time),
        trial_timeout=(
            None if trial_timeout is None else duration(trial_timeout, "--trial-timeout")
        ),
        **plain,
    )


def from_file(path: Path) -> SearchOptions:
    """Read the options from a TOML file; its keys are the names of the flags, with ``-`` or ``_``.

    Plugin files are relative to its folder; they are not loaded yet.

    Raises:
        UsageError: When it cannot be read, a key is unknown or a value has the wrong type.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"--config {path}: expected a TOML file, but it cannot be read ({error.strerror})."
        ) from None
    except ValueError as error:
        raise UsageError(f"--config {path}: expected TOML, but {error}.") from None
    options: dict[str, Any] = {}
    for name, value in content.items():
        key = name.replace("-", "_")
        reader = _READERS.get(key)
        if reader is None:
            hint = _suggestion(key, tuple(_READERS), "known are")
            raise UsageError(f"--config {path}: unknown key {name!r}: {hint}")
        if key in options:
            raise UsageError(f"--config {path}: expected {key} once, got it with - and with _ too.")
        try:
            options[key] = reader(value)
        except TypeError as error:
            raise UsageError(
                f"--config {path}: expected {key} to be {error}, got {value!r}."
            ) from None
    files = options.pop("plugins", ())
    here = path.expanduser().absolute().parent
    return SearchOptions(**options, plugins=tuple(str(here / file) for file in files))


def _suggestion(name: str, known: Sequence[str], verb: str) -> str:
    close = difflib.get_close_matches(name, known, 2)
    return f"did you mean {' or '.join(close)}?" if close else f"{verb} {', '.join(known)}."


def _pair(option: str, form: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key.strip() and equals and value.strip()):
        raise UsageError(f"Expected {option} {form}, got {text!r}.")
    return key.strip(), value.strip()


def duration(text: str | float, option: str = "--time") -> float:
    """Read a duration, in seconds; raises ``UsageError``, which names the option."""
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a string")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a whole number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError("a number")
    return float(value)


def _time(value: Any) -> float:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise TypeError('a duration such as "30m"')
    return duration(value)


def _trial_timeout(value: Any) -> float:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise TypeError('a duration such as "5m"')
    return duration(value, "--trial-timeout")


def _texts(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise TypeError("a string or a list of strings")
    return tuple(values)


def _weights(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError('a table such as {"torch/resnet50" = "none"}')
    return value


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a table of parameters")
    for name, item in value.items():
        if not isinstance(item, str):
            domain(name, item)
    return dict(
        parse_setting(f"{name}={item}") if isinstance(item, str) else (name, item)
        for name, item in value.items()
    )


def _first(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TypeError("tables of parameters, each below [[first]]")
    return tuple(value)


def _plugins(value: Any) -> tuple[str, ...]:
    if not isinstance(value, dict) or set(value) != {"files"}:
        raise TypeError('a table such as {files = ["my_net.py"]}')
    return _texts(value["files"])


_READERS: Mapping[str, Any] = {
    "data": _text,
    "study": _text,
    "trials": _whole,
    "time": _time,
    "target": _number,
    "trial_timeout": _trial_timeout,
    "backbone": _texts,
    "weights": _weights,
    "set": _settings,
    "metric": _text,
    "seed": _whole,
    "workers": _whole,
    "workers_per_device": _whole,
    "device": _text,
    "engine": _text,
    "address": _text,
    "gpus_per_trial": _number,
    "storage": _text,
    "artifacts": _text,
    "log": _texts,
    "first": _first,
    "plugins": _plugins,
}
