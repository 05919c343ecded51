"""What a person sets of the search space, and the sentences for what nobody can set."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from automl_tl.errors import UsageError
from automl_tl.parameters import (
    PARAMETERS,
    Choice,
    Domain,
    Fixed,
    Parameter,
    Range,
    contains,
    encode,
    spelled,
)
from automl_tl.units import is_number

_LISTED = ("image_size",)
"""Numbers that cannot be searched in a range: the images are decoded at each of them."""


_FINEST = 1e-12
"""The smallest step: Optuna's arithmetic has 28 digits."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse ``NAME=VALUE``.

    VALUE is one value (``adam``, ``0.1``), several (``adam,sgd``; JSON for lists of lists), or a
    range (``1e-4..1e-2``).

    Returns:
        The name and the value, a list of values, or ``{"low": ..., "high": ...}``.

    Raises:
        UsageError: When there is no ``=``, or the parameter is unknown or cannot have the value.
    """
    name, separator, raw = text.partition("=")
    name, raw = name.strip(), raw.strip()
    if not separator or not name or not raw:
        raise UsageError(f"--set: expected NAME=VALUE, got {text!r}.")
    value: Any
    low, dots, high = raw.partition("..")
    if dots and low and high:
        value = {"low": _scalar(low), "high": _scalar(high)}
    elif raw.startswith("["):
        try:
            value = json.loads(raw)
        except ValueError:
            raise UsageError(f"--set: expected a JSON list for {name!r}, got {raw!r}.") from None
    elif "," in raw:
        value = [_scalar(part) for part in raw.split(",")]
    else:
        value = _scalar(raw)
    domain(name, value)
    return name, value


def domain(name: str, value: Any) -> Domain:
    """Turn a setting into a domain.

    Raises:
        UsageError: When the parameter is unknown or cannot have the value.
    """
    if not isinstance(name, str) or name not in PARAMETERS:
        close = difflib.get_close_matches(str(name), PARAMETERS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PARAMETERS)}."
        raise UsageError(f"Unknown parameter {name!r}: {hint}")
    parameter = PARAMETERS[name]
    if isinstance(value, Mapping):
        return _range(name, parameter, value)
    if parameter.kind == "units":
        return _unit_lists(name, value)
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError(f"{name}: expected at least one value, got an empty list.")
        options = tuple(_check(name, parameter, option) for option in value)
        known = getattr(parameter.default, "preferred", None)
        return Choice(options, known) if len(options) > 1 else Fixed(options[0])
    return Fixed(_check(name, parameter, value))


@contextmanager
def of_trial(number: int) -> Iterator[None]:
    """Let an error say which of the trials to begin with it is about, counted from 1."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"Trial {number} of those to begin with: {error}") from None


def member(name: str, found: Domain, value: Any) -> Any:
    """Return the value of one trial as it is enqueued.

    Args:
        name: Of the parameter.
        found: Where it is searched.
        value: What a person wrote.

    Raises:
        UsageError: When the parameter is unknown, or is not searched there.
    """
    given = domain(name, value)
    if not isinstance(given, Fixed):
        raise UsageError(f"{name}: expected one value, got {value!r}.")
    units = isinstance(found, Range) and isinstance(given.value, list) and len(given.value) == 1
    wanted = given.value[0] if units else given.value
    if not contains(found, wanted):
        where = "only its default" if found == Fixed(None) else spelled(found)
        raise UsageError(
            f"{name}: expected a value that is searched ({where}), got {value!r}: change it, or "
            f"what is searched, with --set {name}=..."
        )
    return encode(wanted)


def _range(name: str, parameter: Parameter, value: Mapping[str, Any]) -> Range:
    if parameter.kind not in {"float", "int", "units"} or name in _LISTED:
        raise UsageError(f"{name}: expected a value or a list of values, got a range.")
    if unknown := set(value) - {"low", "high", "log", "step"}:
        raise UsageError(f"{name}: a range has low, high, log and step, got {min(unknown)!r}.")
    if not {"low", "high"} <= set(value):
        raise UsageError(f"{name}: expected a range with low and high, got {dict(value)!r}.")
    integer = parameter.kind != "float"
    low, high = (_number(name, parameter, value[end], integer) for end in ("low", "high"))
    if low >= high:
        wanted = f"for one value, give {low} alone" if low == high else "exchange them"
        raise UsageError(f"{name}: expected a range with low < high, got {low}..{high}: {wanted}.")
    default = parameter.default
    known = default if isinstance(default, Range) else Range(low, high)
    given = value.get("step")
    log = value.get("log", known.log and low > 0 and given is None)
    if not isinstance(log, bool):
        raise UsageError(f"{name}: expected log to be true or false, got {log!r}.")
    if log and low <= 0:
        raise UsageError(f"{name}: a logarithmic range starts above 0, got {low}.")
    step = value.get("step", known.step) if given is None else _step(name, given, integer, log)
    if log or step is None:
        return Range(low, high, log, None, integer, known.preferred)
    last = _on_grid(low, high, step)
    if last > low:
        return Range(low, last, False, step, integer, known.preferred)
    if given is not None:
        raise UsageError(f"{name}: expected a step of at most {high - low:g}, got {step:g}.")
    return Range(low, high, False, None, integer, known.preferred)


def _step(name: str, step: Any, integer: bool, log: bool) -> float:
    if log:
        raise UsageError(f"{name}: a range is logarithmic or has a step, got both: leave one out.")
    least = 1 if integer else _FINEST
    if not is_number(step) or step < least or (integer and step != int(step)):
        wanted = "a whole number" if integer else "a number"
        raise UsageError(f"{name}: expected as step {wanted} from {least:g}, got {step!r}.")
    return int(step) if integer else float(step)


def _on_grid(low: float, high: float, step: float) -> float:
    """Return the highest value that lies whole steps above the lowest, as Optuna finds it."""
    first, last, distance = (Fraction(str(number)) for number in (low, high, step))
    return type(high)(first + (last - first) // distance * distance)


def _unit_lists(name: str, value: Any) -> Domain:
    """``256`` and ``[256, 64]`` are one stack of layers, ``[[256], [512, 64]]`` several."""
    stacks = value if isinstance(value, list | tuple) else [value]
    if not any(isinstance(stack, list | tuple) for stack in stacks):
        stacks = [stacks]
    checked = tuple(
        [
            int(_number(name, PARAMETERS[name], width, True))
            for width in (stack if isinstance(stack, list | tuple) else [stack])
        ]
        for stack in stacks
    )
    return Choice(checked) if len(checked) > 1 else Fixed(checked[0])


def _check(name: str, parameter: Parameter, value: Any) -> Any:
    if parameter.kind in {"float", "int"}:
        return _number(name, parameter, value, parameter.kind == "int")
    if parameter.kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"{name}: expected true or false, got {value!r}.")
        return value
    if parameter.kind == "layer":
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise UsageError(
                f"{name}: expected a layer's index or name, a fraction, all or none, got {value!r}."
            )
        if not isinstance(value, str) and value < 0:
            raise UsageError(f"{name}: expected 0 or more, got {value}.")
        return value
    if value not in parameter.options:
        raise UsageError(f"{name}: expected one of {', '.join(parameter.options)}, got {value!r}.")
    return value


def _number(name: str, parameter: Parameter, value: Any, integer: bool) -> float:
    wanted = "a whole number" if integer else "a number"
    if not is_number(value) or (integer and value != int(value)):
        raise UsageError(f"{name}: expected {wanted}, got {value!r}.")
    low, high = parameter.bounds
    if not low <= value <= high:
        raise UsageError(f"{name}: expected {wanted} from {low:g} to {high:g}, got {value}.")
    return int(value) if integer else float(value)


def _scalar(text: str) -> Any:
    text = text.strip()
    try:
        return json.loads(text.lower() if text.lower() in {"true", "false"} else text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
