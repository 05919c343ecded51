"""What is recorded of a trial, checked before anybody relies on it: a study may be a stranger's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from automl_tl.errors import StudyError
from automl_tl.facts import FACTS, LOST, facts_of, is_artifact
from automl_tl.parameters import PARAMETERS
from automl_tl.storage import open_optuna
from automl_tl.units import is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import optuna
    from optuna.trial import FrozenTrial

    from automl_tl.study import StudyDirectory

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_study(
    directory: StudyDirectory, hurried: Callable[[], bool] | None = None
) -> optuna.Study:
    """Open the Optuna study of a study directory, the facts of all finished trials checked.

    Args:
        directory: The study directory.
        hurried: See ``database.Database``.

    Raises:
        StudyError: As ``storage.open_optuna``; or names the first trial with facts of the wrong
            kind, and which.
    """
    config = directory.config
    study = open_optuna(directory.path, config.storage, config.name, config.seed, hurried)
    for trial in study.get_trials(deepcopy=False, states=_ENDED):
        wrong = _wrong(trial, config.metric)
        if wrong:
            raise StudyError(
                f"Trial {trial.number} of the study {study.study_name!r} is recorded with a "
                f"damaged {wrong!r}: put back a copy of its storage."
            )
    return study


def _wrong(trial: FrozenTrial, metric: str) -> str | None:
    """Return the name of what is damaged, None when nothing is."""
    for name in (FACTS, LOST):
        if not isinstance(trial.user_attrs.get(name, {}), dict):
            return name
    facts = facts_of(trial)
    for name, right in _KINDS.items():
        if facts.get(name) is not None and not right(facts[name]):
            return name
    return _missing(trial, facts, metric) if trial.state == TrialState.COMPLETE else None


def _missing(trial: FrozenTrial, facts: Mapping[str, Any], metric: str) -> str | None:
    """Return the name of what a complete trial should have and has not."""
    for name in ("spec", "validation", "fine_tune_at", "layers"):
        if facts.get(name) is None:
            return name
    if metric not in facts["validation"] or "n" not in facts["validation"]:
        return "validation"
    if not trial.values or len(trial.values) != 1 or not math.isfinite(trial.values[0]):
        return "value"
    if not math.isclose(trial.values[0], facts["validation"][metric], rel_tol=1e-6, abs_tol=1e-9):
        return "value"  # it is recorded twice: one of them was changed
    return None


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _units(value: Any) -> bool:
    return isinstance(value, list) and all(map(_integer, value))


_ALWAYS = ("head_units", "optimizer", "learning_rate", "resize", "pooling", "dropout")


def _spec(value: Any) -> bool:
    """Whether it has what is shown and exported of every trial, and parameters of their kinds."""
    if not isinstance(value, dict):
        return False
    there = "image_size" in value and all(value.get(name) is not None for name in _ALWAYS)
    right = all(value.get(name) is None or kind(value[name]) for name, kind in _PARAMETERS.items())
    return there and right and _text(value.get("backbone"))


def _files(value: Any) -> bool:
    """Whether it names artifacts; by anything else, a stranger could name any file to delete."""
    return isinstance(value, dict) and all(
        isinstance(one, dict) and is_artifact(one.get("id")) and _text(one.get("sha256"))
        for one in value.values()
    )


def _reuse(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("passes"), list):
        return False
    passes = all(
        isinstance(one, dict) and is_number(one.get("images")) and is_number(one.get("seconds"))
        for one in value["passes"]
    )
    return passes and all(is_number(value.get(name)) for name in ("hits", "images", "seconds"))


_OF: Mapping[str, Callable[[Any], bool]] = {
    "float": is_number,
    "int": _integer,
    "str": _text,
    "units": _units,
}
_PARAMETERS = {name: _OF[one.kind] for name, one in PARAMETERS.items() if one.kind in _OF}
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "spec": _spec,
    "validation": _numbers,
    "reuse": _reuse,
    "files": _files,
    "notes": _texts,
    **dict.fromkeys(("plan", "device", "precision", "stopped", "reason"), _text),
    **dict.fromkeys(("duration_s", "last_value", "closing_seconds", "head_scale"), is_number),
    **dict.fromkeys(
        (
            *("epochs", "planned_epochs", "fine_tune_at", "layers", "twin_of"),
            *("total_parameters", "trainable_parameters", "trainable_variables"),
        ),
        _integer,
    ),
}
