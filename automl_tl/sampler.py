"""The sampler: Optuna's TPE, seeded for every trial, which first stays where it is cheap."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler

from automl_tl.ledger import Ledger
from automl_tl.parameters import STORED_BY

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

RANDOM = 10
"""Trials before TPE begins to model; until then it draws at random."""
CHEAP = 0.75
"""Of these, the share that trains from activations which are there."""
BEST = 25
"""Most trials that TPE takes for good."""
RECENT = 100
"""Others that it looks at, the latest ones."""


class SeededSampler(BaseSampler):
    """Optuna's TPE, seeded anew for every trial from the study's seed and the trial's number.

    A resumed study thereby goes on with fresh draws, and repeats an uninterrupted one's. In a long
    study TPE sees the best and the latest trials only, because its time grows with their number; it
    finds as good ones (``docs/decisions.md``).

    While TPE still draws at random, every depth is as good to it as another. Then most trials take
    over from an earlier one what its stored activations depend on, and draw the rest: they cost a
    fraction of the others.

    Args:
        seed: Of the study.
        cheap: Whether what a finished trial stored spares a similar one most of its time.
    """

    def __init__(
        self, seed: int, cheap: Callable[[FrozenTrial], bool] = lambda trial: False
    ) -> None:
        self._seed = seed
        self._cheap = cheap
        self._tpe = self._fresh(0)
        self._ledger: Ledger | None = None
        self._seen: optuna.Study

    def _fresh(self, number: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # gamma goes with Optuna 6
            return TPESampler(
                seed=(self._seed * 1_000_003 + number) % 2**32,
                n_startup_trials=RANDOM,
                gamma=lambda seen: _good(seen if seen < BEST + RECENT else number),
                multivariate=True,
                group=True,
                constant_liar=True,
            )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial, and choose what it sees."""
        self._tpe = self._fresh(trial.number)
        if self._ledger is None or self._ledger.study is not study:
            self._ledger = Ledger(study)
        self._seen = _Seen(self._ledger)
        self._tpe.before_trial(self._seen, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See ``TPESampler``."""
        return self._tpe.infer_relative_search_space(self._seen, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See ``TPESampler``, which has nothing to say while it draws at random."""
        found = self._tpe.sample_relative(self._seen, trial, search_space)
        return found or self._like_another(trial.number, search_space)

    def _like_another(self, number: int, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return what a trial shares with an earlier one whose activations are stored."""
        there = [trial for trial in self._seen._get_trials(deepcopy=False) if self._cheap(trial)]
        random = np.random.default_rng([self._seed, number])
        if not there or random.random() >= CHEAP:
            return {}
        other = there[random.integers(len(there))]
        return {
            name: value
            for name, value in other.params.items()
            if name.partition("@")[0] in STORED_BY and other.distributions[name] == space.get(name)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See ``TPESampler``."""
        return self._tpe.sample_independent(self._seen, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """See ``TPESampler``."""
        self._tpe.after_trial(study, trial, state, values)


class _Seen(optuna.Study):
    """A study of which only the best and the latest finished trials are seen.

    It shares everything else with the whole one.
    """

    def __init__(self, ledger: Ledger) -> None:
        ledger.look()
        self.__dict__ = {**ledger.study.__dict__, "_visible": _visible(ledger)}

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        visible: list[FrozenTrial] = self.__dict__["_visible"]
        found = [trial for trial in visible if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


def _visible(ledger: Ledger) -> list[FrozenTrial]:
    """Return the trials that are not finished, the latest others and the best before these."""
    if len(ledger) <= BEST + RECENT:
        finished = ledger.latest(BEST + RECENT)
    else:
        latest = ledger.latest(RECENT)
        finished = [*ledger.best(BEST, before=latest[0].number), *latest]
    return sorted((*finished, *ledger.open), key=lambda trial: trial.number)


def _good(trials: int) -> int:
    """Return how many of a study's trials TPE takes for good: a tenth, Optuna's rule."""
    return min(math.ceil(0.1 * trials), BEST)
