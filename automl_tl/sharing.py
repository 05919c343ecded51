"""Several searches on one study: whose trials are dead, and how many run elsewhere.

A study in a journal has one search at a time, which a lock guards. A study in a database may have
several, on several machines, none of which is in charge: each clears away what died on its machine
and what has been silent for too long.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from automl_tl import owner, storage
from automl_tl.owner import OWNER

if TYPE_CHECKING:
    import optuna

    from automl_tl.owner import Dead

    Reaped = list[tuple[int, str, bool]]

LOOK_SECONDS = 5.0
"""How often a search looks at what the others do."""
FIRST_SIGN_SECONDS = 60.0
"""How long a trial may be without any sign of life: after being asked for, that is milliseconds."""
DIED = "its process died"
SILENT = "its worker was silent for too long"


def at_work(study: optuna.Study) -> bool:
    """Whether a running trial of a study in a database may be alive; also when nobody knows."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    stale = storage.stale(study)
    return not all(
        owner.dead_here(trial.user_attrs.get(OWNER)) or trial._trial_id in stale
        for trial in running
    )


class Sharing:
    """Keeps a search's study clear of dead trials, whoever else is at work on it.

    Args:
        study: The Optuna study.
        search: Identity of the search.
        shared: Whether others may be at work: the study lies in a database.

    Attributes:
        shared: As given.
        elsewhere: Trials that run and are not this search's.
    """

    def __init__(self, study: optuna.Study, search: str, *, shared: bool) -> None:
        self.shared = shared
        self.elsewhere = 0
        self._study = study
        self._search = search
        self._looked = float("-inf")
        self._unheard: dict[int, float] = {}

    def begin(self) -> Reaped:
        """Fail the trials that died before this search; returns number, reason, tried again."""
        storage.enqueue_lost(self._study)
        dead = owner.dead_here if self.shared else owner.anybody
        return [*self._reap(DIED, dead), *self.look()]

    @property
    def due(self) -> bool:
        """Whether it is time to look at what the others do."""
        return self.shared and time.monotonic() - self._looked >= LOOK_SECONDS

    def look(self) -> Reaped:
        """Fail what died meanwhile and was not this search's, and count what runs elsewhere.

        Returns:
            As ``begin``.
        """
        if not self.shared:
            return []
        now = self._looked = time.monotonic()
        reaped = [*self._reap(DIED, owner.dead_here), *self._silent(now)]
        ours = owner.of(self._search)
        self.elsewhere = sum(not ours(t.user_attrs.get(OWNER)) for t in self._running())
        return reaped

    def worker_died(self, worker: int, reason: str) -> Reaped:
        """Fail the trials of one of this search's workers."""
        return self._reap(f"{DIED} ({reason})", owner.of(self._search, worker))

    def end(self, *, patient: bool = True) -> None:
        """Fail what this search's workers, which are gone, left unfinished.

        Args:
            patient: Whether they had time to obey: what did not may hang again.
        """
        dead = owner.of(self._search) if self.shared else owner.anybody
        storage.reap(self._study, "the search was stopped", dead, stopped=not patient)

    def _reap(self, reason: str, dead: Dead) -> Reaped:
        return [(n, reason, again) for n, again in storage.reap(self._study, reason, dead)]

    def _silent(self, now: float) -> Reaped:
        """Fail trials whose signs of life ended, and those that never gave one."""
        running = self._running()
        stale, heard = storage.stale(self._study), storage.heard(self._study, running)
        self._unheard = {
            trial.number: self._unheard.get(trial.number, now)
            for trial in running
            if trial._trial_id not in heard
        }
        found: Reaped = []
        for trial in running:
            never = now - self._unheard.get(trial.number, now) > FIRST_SIGN_SECONDS
            if not never and trial._trial_id not in stale:
                continue
            again = storage.fail(self._study, trial, SILENT)
            if again is not None:
                found.append((trial.number, SILENT, again))
        return found

    def _running(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
