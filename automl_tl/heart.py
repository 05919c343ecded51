"""Who runs a worker's trials, and signs of life, for searches on other machines to see."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from automl_tl.owner import OWNER
from automl_tl.storage import database

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna


class Heart:
    """Records whose trial each of a worker's is, and that the worker lives, in its own thread.

    Args:
        study: The Optuna study; one in a journal needs no signs of life, and none are recorded.
        owner: What ``owner.sign`` says of the worker.
    """

    def __init__(self, study: optuna.Study, owner: Mapping[str, Any]) -> None:
        self._database = database(study)
        self._owner = dict(owner)
        self._trials: set[int] = set()
        if self._database:
            threading.Thread(target=self._beat, daemon=True).start()

    def add(self, trial: optuna.Trial) -> None:
        """Begin to show that a trial is alive, then sign it.

        Whose machine is lost in between leaves a trial that falls silent, as any other does.
        """
        if self._database:
            self._database.record_heartbeat(trial._trial_id)
            self._trials.add(trial._trial_id)
        trial.set_user_attr(OWNER, self._owner)

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
