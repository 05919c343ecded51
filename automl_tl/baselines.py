"""The trials that a search begins with: probes, the best of them tuned, and the best deeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from automl_tl.ledger import rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna

    from automl_tl.space import Space

_FIXED = "fixed_params"


class Baselines:
    """Enqueues the first trials of a study; a kill at any time loses and doubles none.

    Args:
        study: The Optuna study.
        space: What it searches.

    Attributes:
        done: Whether all are enqueued.
    """

    def __init__(self, study: optuna.Study, space: Space) -> None:
        self._study = study
        self._space = space
        self.done = False
        self._enqueued: set[str] = set()

    def enqueue(self) -> None:
        """Enqueue the probes; once they are finished, the best to be tuned; then what is deeper.

        Call it at the start, and whenever a trial has finished.
        """
        if self.done:
            return
        probes = self._space.probes()
        self._once("baselines", probes)
        probed = self._ranked(probes)
        if probed is None:
            return
        tuned = self._space.tuned([self._space.backbone(params) for params in probed])
        self._once("tuned", tuned)
        climbed = self._ranked(tuned)
        if climbed is not None:
            self._once("deeper", self._space.deeper(climbed[0]) if climbed else [])
            self.done = True

    @property
    def waiting(self) -> int:
        """How many trials are enqueued and not begun."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _once(self, name: str, baselines: Sequence[dict[str, Any]]) -> None:
        if name in self._enqueued:
            return
        self._enqueued.add(name)
        if self._study.user_attrs.get(name):
            return
        known = [t.system_attrs.get(_FIXED) for t in self._study.get_trials(deepcopy=False)]
        for params in baselines:
            if params not in known:
                self._study.enqueue_trial(params)
        self._study.set_user_attr(name, True)

    def _ranked(self, baselines: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Return those that are complete, best first; None while one is not finished."""
        trials = self._study.get_trials(deepcopy=False)
        asked = [trial for trial in trials if trial.system_attrs.get(_FIXED) in baselines]
        if not all(trial.state.is_finished() for trial in asked):
            return None
        complete = [trial for trial in asked if trial.state == TrialState.COMPLETE]
        return [trial.system_attrs[_FIXED] for trial in sorted(complete, key=rank(self._study))]
