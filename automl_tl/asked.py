"""What a person asks of a new study, before anything is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from automl_tl import metrics
from automl_tl.artifacts import Artifacts
from automl_tl.errors import UsageError
from automl_tl.plugins import get_plugins
from automl_tl.settings import domain, of_trial
from automl_tl.space import Space
from automl_tl.units import is_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_SEEDS = 2**32
"""So many seeds there are: NumPy's older generators take no more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of ``Study.create``, see there."""

    data: str
    backbones: Sequence[str] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    seed: int = 0
    storage: str | None = None
    artifacts: str | None = None
    log: Sequence[str] = ()
    first: Sequence[Mapping[str, Any]] = ()
    device: str = "auto"

    def check(self) -> None:
        """Check what can be checked without a look at the data.

        Raises:
            UsageError: For the first thing that is wrong.
        """
        if self.metric not in metrics.DIRECTIONS:
            known = ", ".join(metrics.DIRECTIONS)
            raise UsageError(f"Expected a metric of {known}, got {self.metric!r}.")
        if not is_count(self.seed, 0) or self.seed >= _SEEDS:
            raise UsageError(
                f"seed: expected a whole number from 0 to {_SEEDS - 1}, got {self.seed!r}."
            )
        Space(("any/backbone",), self.settings)
        plugins = get_plugins()
        for pattern in (*self.backbones, *self.weights):
            plugins.match(pattern)
        for number, one in enumerate(self.first, 1):
            with of_trial(number):
                for parameter, value in one.items():
                    if parameter != "backbone":
                        domain(parameter, value)
        for name in self.log:
            plugins.observer(name)
        if self.artifacts is not None:
            if self.storage is None:
                raise UsageError(
                    "--artifacts is for a study that several machines share: give --storage too."
                )
            Artifacts(self.artifacts)
