"""Signs of life of a worker's trials, for searches on other machines to see."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from automl_tl.storage import database

if TYPE_CHECKING:
    import optuna


class Heart:
    """Records that a worker lives, for each of its trials, in a thread of its own.

    Args:
        study: The Optuna study; one in a journal needs no signs, and none are recorded.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._database = database(study)
        self._trials: set[int] = set()
        if self._database:
            threading.Thread(target=self._beat, daemon=True).start()

    def add(self, trial: optuna.Trial) -> None:
        """Begin to show that a trial is alive."""
        if self._database:
            self._database.record_heartbeat(trial._trial_id)
            self._trials.add(trial._trial_id)

    def remove(self, trial: optuna.Trial) -> None:
        """End it: the trial is told."""
        self._trials.discard(trial._trial_id)

    def _beat(self) -> None:
        from automl_tl.database import BEAT_SECONDS

        assert self._database is not None
        pause = threading.Event()
        while not pause.wait(BEAT_SECONDS):
            for trial in tuple(self._trials):
                try:
                    self._database.record_heartbeat(trial)
                except Exception:  # the next beat may do; the worker itself meets the fault as well
                    break
