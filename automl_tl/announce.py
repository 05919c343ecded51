"""What a supervisor says, as the events that its listener gets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from automl_tl import storage
from automl_tl.attempt import TOLD
from automl_tl.facts import FACTS
from automl_tl.study_data import SPLITS

if TYPE_CHECKING:
    import optuna

    from automl_tl.bounds import Bounds
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData


def study_event(
    directory: StudyDirectory,
    data: StudyData,
    bounds: Bounds,
    study: optuna.Study,
    finished: int,
) -> dict[str, Any]:
    """Return the event that a search begins with; ``finished`` trials are there already."""
    return {
        "event": "study",
        "name": directory.name,
        "directory": str(directory.path),
        "metric": directory.config.metric,
        "resumed": finished > 0,
        "finished": finished,
        "backbones": list(directory.config.backbones),
        "images": {split: len(data.rows(split)) for split in SPLITS},
        "classes": len(data.classes),
        "bounds": {
            "trials": bounds.trials,
            "time": bounds.seconds,
            "target": bounds.target,
            "trial_timeout": bounds.trial_seconds,
        },
        "elapsed": time.monotonic() - bounds.started,
        "best": _best(study),
    }


def _best(study: optuna.Study) -> dict[str, Any] | None:
    """Return the best trial as its ``trial_finished`` told it."""
    best = storage.best_trials(study)
    if not best:
        return None
    facts = best[0].user_attrs[FACTS]
    return {
        "number": best[0].number,
        "state": "complete",
        "value": float(best[0].values[0]),
        "params": dict(best[0].params),
        "backbone": facts["spec"]["backbone"],
        **{key: facts.get(key) for key in TOLD},
    }


def died(number: int, reason: str, again: bool) -> str:
    """Say what becomes of a trial whose process died."""
    what = "it is tried again" if again else "it died before and is given up"
    return f"Trial {number} was lost ({reason}); {what}."
