"""The trials that a search begins with: probes, the best of them tuned, and the best deeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from automl_tl.ledger import rank, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from automl_tl.space import Space

DEEPER_COSTS = 3.0
"""Seconds of all layers, augmented, over those of the upper half whose activations are new."""
RECIPES = 8
"""Trials near the best half, after which all of it is trained, whatever they took."""
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

    def enqueue(self, left: int | None = None) -> None:
        """Enqueue the probes; once they are finished, the best to be tuned; later what is deeper.

        Call it at the start, and whenever a trial has finished.

        Args:
            left: How many more trials there will be; None for no bound.
        """
        if self.done:
            return
        probes = self._space.probes()
        self._once("baselines", probes)
        probed = self._ranked(probes)
        if probed is None:
            return
        tuned = self._space.tuned([self._space.backbone(_params(trial)) for trial in probed])
        self._once("tuned", tuned)
        climbed = self._ranked(tuned)
        if climbed is None:
            return
        deeper = self._space.deeper(_params(climbed[0])) if climbed else []
        if deeper and not self._due(climbed[0], left):
            return
        self._once("deeper", deeper)
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

    def _due(self, half: FrozenTrial, left: int | None) -> bool:
        """Whether recipes near the half have had what training all layers will take.

        Which of the two is worth more is not known before, so both get the same: time, or half of
        the trials that there will be.
        """
        trials = self._study.get_trials(deepcopy=False)
        drawn = [t for t in trials if t.state.is_finished() and _FIXED not in t.system_attrs]
        enough = RECIPES if left is None else min(RECIPES, left)
        spent = sum(map(seconds, drawn))
        return len(drawn) >= enough or spent >= DEEPER_COSTS * seconds(half)

    def _ranked(self, baselines: Sequence[dict[str, Any]]) -> list[FrozenTrial] | None:
        """Return those that are complete, best first; None while one is not finished."""
        trials = self._study.get_trials(deepcopy=False)
        asked = [trial for trial in trials if trial.system_attrs.get(_FIXED) in baselines]
        if not all(trial.state.is_finished() for trial in asked):
            return None
        complete = [trial for trial in asked if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=rank(self._study))


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters that a trial was enqueued with."""
    params: dict[str, Any] = trial.system_attrs[_FIXED]
    return params
