"""The look at the test split, which a search has one of its workers take in the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.protocols import Engine

NOT_YET = "`automl-tl resume` does it."


def last_look(
    crew: Engine,
    index: int,
    number: int,
    end: float,
    hurried: Callable[[], bool],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Have a trial's figures on the test split computed, and kept models written.

    Args:
        crew: The workers.
        index: The one that does it.
        number: Of the trial.
        end: ``time.monotonic()`` until which it may take.
        hurried: Whether to give up at once.
        tell: Told what the worker says, and a warning when the figures are not there in the end.
    """
    crew.send(index, {"do": "finish", "trial": number})
    tell({"event": "stage", "worker": index, "what": "test split", "done": 0, "total": 1})
    tested, ended = False, ""
    while not ended and time.monotonic() < end and not hurried():
        for speaker, message in crew.poll(0.2):
            event = message["event"]
            if event in {"warning", "stage"}:
                tell({"worker": speaker, **message})
            elif speaker == index:
                tested = tested or event == "tested"
                if event in {"closed", "died", "fatal"}:
                    ended = f": {message.get('reason')}."
    if not tested:
        why = ended or f" in time; {NOT_YET}"
        tell({"event": "warning", "text": f"The test split was not evaluated{why}"})
