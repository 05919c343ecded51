"""When a search of a study ends: as asked now, as asked the last time, or as is sensible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.bounds import DEFAULT_TRIALS, make_bounds
from automl_tl.ledger import Ledger
from automl_tl.published import publish_bounds, published_bounds
from automl_tl.recorded import open_study
from automl_tl.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.bounds import Bounds
    from automl_tl.study import StudyDirectory


def search_bounds(
    directory: StudyDirectory,
    trials: int | None,
    time: str | float | None,
    target: float | None,
    trial_timeout: str | float | None,
    *,
    started: float | None,
    tell: Callable[[Mapping[str, Any]], None],
) -> Bounds:
    """Decide when a search ends, and remember what was asked.

    Args:
        directory: The study directory.
        trials: As for ``Study.search``.
        time: Likewise.
        target: Likewise.
        trial_timeout: Likewise; without one, that of before counts on: it guards every trial and is
            never used up.
        started: ``time.monotonic()`` from which ``time`` counts; now by default.
        tell: Told which bounds were chosen where none was given.

    Raises:
        StudyError: When the study is damaged, or cannot be written.
        UsageError: When a bound makes no sense.
    """
    study = open_study(directory)
    ledger = Ledger(study)
    ledger.look()
    earlier = directory.bounds() or published_bounds(study, directory.config.metric)
    if trial_timeout is None:
        trial_timeout = earlier.get("trial_timeout")
    if trials is None and time is None and target is None:
        if earlier.get("trials") is None or ledger.counted < earlier["trials"]:
            trials, time, target = (earlier.get(name) for name in ("trials", "time", "target"))
    bounds = make_bounds(
        directory.config.metric, ledger.counted, trials, time, target, started, trial_timeout
    )
    if trials is None and time is None and target is None:
        limit = format_duration(bounds.seconds or 0)
        text = f"No bound was given: at most {DEFAULT_TRIALS} more trials and {limit}."
        tell({"event": "note", "text": text})
    asked = {"trials": trials, "time": time, "target": target, "trial_timeout": trial_timeout}
    if any(value is not None for value in asked.values()):
        directory.write_bounds(asked)
        if directory.config.storage:
            publish_bounds(study, asked)
    return bounds
