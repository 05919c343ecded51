"""``--explain``: what the planner weighed for each trial, and what it decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.cli.state import Event

SHOWN = 6
"""Places to train from that are listed, the cheapest first."""


def explaining(listener: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return a listener that is also told, as notes, of every trial's plan."""

    def tell(event: Event) -> None:
        listener(event)
        if event["event"] == "trial_started":
            listener({"event": "note", "text": plan(event)})

    return tell


def plan(event: Event) -> str:
    """Return the plan of a ``trial_started`` event: a sentence, and a line for each option."""
    options = event.get("options") or []
    shown = options[:SHOWN]
    shown += [option for option in options[SHOWN:] if option["chosen"] or option["cut"] == 0]
    left = len(options) - len(shown)
    more = [f"  and {left} more"] if left else []
    head = f"Trial {event['number']}, {event['backbone']}: {event['plan']}."
    return "\n".join([head, *map(_line, shown), *more])


def _line(option: Mapping[str, Any]) -> str:
    mark = ">" if option["chosen"] else " "
    if option["cut"] == 0:
        return f"{mark} pixels: layers below in every epoch {_seconds(option['training'])}"
    half = " in float16" if option["dtype"] == "float16" else ""
    text = (
        f"{mark} layer {option['cut']}{half}: {format_bytes(option['bytes'])}, "
        f"storing {_seconds(option['fill'])}, reading and layers below "
        f"{_seconds(option['training'])}, counts {_seconds(option['cost'])}"
    )
    return f"{text}; {option['note']}" if option["note"] else text


def _seconds(value: float) -> str:
    return format_duration(value) if value >= 0.05 else "0s"
