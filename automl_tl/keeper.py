"""What a worker keeps of its finished trials, here and for the other machines of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from automl_tl import kept, metrics, storage
from automl_tl.artifacts import FIGURES, FILES, MODELS, Artifacts
from automl_tl.errors import StudyError
from automl_tl.recipe import model_facts
from automl_tl.study import KEEP_MODELS

if TYPE_CHECKING:
    import optuna

    from automl_tl.attempt import Attempt
    from automl_tl.outcome import Outcome
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData


class Keeper:
    """Keeps every trial's figures, and the models of the best.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
    """

    def __init__(self, directory: StudyDirectory, data: StudyData, study: optuna.Study) -> None:
        self._directory = directory
        self._data = data
        self._study = study
        location = directory.config.artifacts
        self._artifacts = Artifacts(location) if location else None
        self._dropped: set[str] = set()

    def keep(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write a trial's files before it is told, so that no finished trial lacks them."""
        number = attempt.number
        kept.write_figures(self._directory, number, outcome.logits, outcome.history)
        if self._among_the_best(number, outcome.value):
            facts = model_facts(self._directory.config, self._data, number, attempt.facts)
            kept.write_model(self._directory, number, outcome.trained, facts.metadata())
        if self._artifacts:
            folder = self._directory.trial(number)
            files = [p for name in (*FIGURES, *MODELS) if (p := folder / name).is_file()]
            try:
                attempt.facts[FILES] = self._artifacts.put(attempt.trial, files)
            except StudyError as error:
                attempt.facts["notes"].append(str(error))

    def let_go(self) -> None:
        """Delete the models that are no longer among the best."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        best = storage.best_trials(self._study)[:KEEP_MODELS]
        self._directory.keep_models([trial.number for trial in (*best, *running)])
        if self._artifacts:
            self._artifacts.drop_models(self._study, self._dropped)

    def _among_the_best(self, number: int, value: float) -> bool:
        """Whether a trial ranks with those whose models are kept; of equal ones, the earlier."""
        best = storage.best_trials(self._study)[:KEEP_MODELS]
        if len(best) < KEEP_MODELS:
            return True
        metric = self._directory.config.metric
        last = metrics.goodness(float(best[-1].values[0]), metric), -best[-1].number
        return (metrics.goodness(value, metric), -number) > last
