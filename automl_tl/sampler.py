"""The sampler: Optuna's TPE, seeded for every trial, which first stays where it is cheap."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler

from automl_tl.ledger import Ledger, seconds
from automl_tl.parameters import INPUT, STORED_BY, Range, preferred

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

RANDOM = 10
"""Trials before TPE begins to model; until then it draws at random."""
NEAR = 24
"""Trials until TPE draws all; from ``RANDOM`` on it draws more and more of them."""
CHANGED = 0.5
"""Share of the numbers in which such a trial differs from the best one."""
SWITCHED = 0.1
"""Share of the choices in which it does."""
STEP = 0.1
"""Standard deviation of a difference, as a share of the range; one step of it at least."""
BEST = 25
"""Most trials that TPE takes for good."""
RECENT = 100
"""Others that it looks at, the latest ones."""


class SeededSampler(BaseSampler):
    """Optuna's TPE, seeded anew for every trial from the study's seed and the trial's number.

    A resumed study thereby goes on with fresh draws, and repeats an uninterrupted one's. In a long
    study TPE sees the best and the latest trials only, because its time grows with their number; it
    finds as good ones (``docs/decisions.md``).

    A dozen parameters are too many for a model of a few trials. So the first ones, and fewer and
    fewer later ones, are drawn near the best fine-tuned one: they change what it had a little. One
    near the best of those that trained from stored activations costs a fraction, because it takes
    over what these depend on. Where that is not the best of all, both get as much time.

    Args:
        seed: Of the study.
        tuned: Whether a finished trial trained more than a head.
        cheap: Whether what such a trial stored spares a similar one most of its time.
    """

    def __init__(
        self,
        seed: int,
        tuned: Callable[[FrozenTrial], bool] = lambda trial: False,
        cheap: Callable[[FrozenTrial], bool] = lambda trial: False,
    ) -> None:
        self._seed = seed
        self._tuned = tuned
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
        """See ``TPESampler``, but for the first trials."""
        random = np.random.default_rng([self._seed, trial.number])
        share = (NEAR - trial.number) / (NEAR - RANDOM)
        near = self._near_the_best(search_space, random) if random.random() < share else {}
        return near or self._tpe.sample_relative(self._seen, trial, search_space)

    def _near_the_best(
        self, space: dict[str, BaseDistribution], random: np.random.Generator
    ) -> dict[str, Any]:
        """Return parameters close to those of a good fine-tuned trial, nothing without one."""
        best = self._good_one(random)
        if best is None:
            return {}
        fixed = STORED_BY if self._cheap(best) else INPUT
        kept = {
            name: value
            for name, value in best.params.items()
            if best.distributions[name] == space.get(name)
        }
        free = [name for name in kept if name.partition("@")[0] not in fixed]
        if not free:
            return {}
        numbers = [name for name in free if not isinstance(space[name], CategoricalDistribution)]
        certain = (numbers or free)[random.integers(len(numbers or free))]
        for name in free:
            share = CHANGED if name in numbers else SWITCHED
            if name == certain or random.random() < share:
                kept[name] = _near(kept[name], space[name], random)
        return kept

    def _good_one(self, random: np.random.Generator) -> FrozenTrial | None:
        """Return the best fine-tuned trial, or the best cheap one: near both, as much is spent."""
        assert self._ledger is not None, "before_trial comes first"
        ranked = [trial for trial in self._ledger.best(len(self._ledger)) if self._tuned(trial)]
        if not ranked:
            return None
        best = ranked[0]
        cheap = next((trial for trial in ranked if self._cheap(trial)), best)
        share = seconds(cheap) / (seconds(cheap) + seconds(best))
        return best if random.random() < share else cheap

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


def _near(value: Any, found: BaseDistribution, random: np.random.Generator) -> Any:
    """Return another value of a distribution, close to one where it has an order."""
    if isinstance(found, CategoricalDistribution):
        others = [choice for choice in found.choices if choice != value]
        return others[random.integers(len(others))] if others else value
    assert isinstance(found, FloatDistribution | IntDistribution)
    step = None if found.log else found.step
    domain = Range(found.low, found.high, found.log, step, isinstance(found, IntDistribution))
    span = math.log(found.high / found.low) if found.log else found.high - found.low
    moved = random.normal(0.0, STEP * span)
    moved = math.copysign(max(abs(moved), step or 0.0), moved)
    return preferred(domain, value * math.exp(moved) if found.log else value + moved)


def _good(trials: int) -> int:
    """Return how many of a study's trials TPE takes for good: a tenth, Optuna's rule."""
    return min(math.ceil(0.1 * trials), BEST)
