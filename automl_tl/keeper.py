"""What a worker keeps of its finished trials, here and for the other machines of the study."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from automl_tl import kept, metrics
from automl_tl.artifacts import FIGURES, MODELS, Artifacts
from automl_tl.errors import AutoMLError, StudyError
from automl_tl.facts import FILES
from automl_tl.recipe import model_facts
from automl_tl.study import KEEP_MODELS
from automl_tl.units import format_bytes

if TYPE_CHECKING:
    from automl_tl.attempt import Attempt
    from automl_tl.ledger import Ledger
    from automl_tl.outcome import Outcome
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

_FIGURES_BYTES = 1 << 20


_DROPPED = 10 * KEEP_MODELS
"""How far down the ranking models are looked for that other machines' trials pushed out."""


class Keeper:
    """Keeps every trial's figures, and the models of the best.

    Args:
        directory: The study directory.
        data: The study's data.
        ledger: The study's trials; what is decided here stands on its last look.

    Raises:
        UsageError: When the study's artifacts cannot be put where they belong.
    """

    def __init__(self, directory: StudyDirectory, data: StudyData, ledger: Ledger) -> None:
        self._directory = directory
        self._data = data
        self._ledger = ledger
        location = directory.config.artifacts
        self._artifacts = Artifacts(location) if location else None
        if self._artifacts:
            self._artifacts.check()
        self._dropped: set[str] = set()

    def keep(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write a trial's files before it is told, so that no finished trial lacks them.

        Raises:
            StudyError: When there is no room for them.
            AutoMLError: When the backend does not write the model for another reason.
        """
        number = attempt.number
        try:
            kept.write_figures(self._directory, number, outcome.logits, outcome.history)
            if self._among_the_best(number, outcome.value):
                facts = model_facts(self._directory.config, self._data, number, attempt.facts)
                kept.write_model(self._directory, number, outcome.trained, facts.metadata())
        except (AutoMLError, OSError, SafetensorError) as error:
            self._check_room(outcome)
            if isinstance(error, AutoMLError):
                raise
            raise StudyError(
                f"The files of trial {number} cannot be written to {self._directory.path} "
                f"({getattr(error, 'strerror', None) or error}): `automl-tl resume` goes on once "
                "they can."
            ) from None
        if self._artifacts:
            folder = self._directory.trial(number)
            files = [p for name in (*FIGURES, *MODELS) if (p := folder / name).is_file()]
            try:
                attempt.facts[FILES] = self._artifacts.put(attempt.trial, files)
            except StudyError as error:
                attempt.facts["notes"].append(str(error))

    def let_go(self) -> None:
        """Delete the models that are no longer among the best."""
        spared = (*self._ledger.best(KEEP_MODELS), *self._ledger.open)
        self._directory.keep_models([trial.number for trial in spared])
        if self._artifacts:
            self._artifacts.drop_models(self._ledger.best(_DROPPED), self._dropped)

    def _check_room(self, outcome: Outcome) -> None:
        """Raise ``StudyError`` when the disk has no room for a trial's model."""
        needed = 4 * outcome.facts.total_parameters + _FIGURES_BYTES
        free = shutil.disk_usage(self._directory.path).free
        if free < needed:
            raise StudyError(
                f"The disk of {self._directory.path} is full: {format_bytes(free)} are free, and a "
                f"trial's files take up to {format_bytes(needed)}; free some space, and "
                "`automl-tl resume` goes on."
            )

    def _among_the_best(self, number: int, value: float) -> bool:
        """Whether a trial ranks with those whose models are kept; of equal ones, the earlier."""
        best = self._ledger.best(KEEP_MODELS)
        if len(best) < KEEP_MODELS:
            return True
        metric = self._directory.config.metric
        last = metrics.goodness(float(best[-1].values[0]), metric), -best[-1].number
        return (metrics.goodness(value, metric), -number) > last
