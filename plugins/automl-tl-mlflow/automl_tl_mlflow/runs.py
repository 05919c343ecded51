"""MLflow's runs of one study, in a SQLite file in the study directory.

MLflow no longer develops its file store and refuses it by default; SQLite needs no server either.
"""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from automl_tl.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    from automl_tl.specs import FinishedEpoch, FinishedTrial

FLUSH_SECONDS = 1.0
"""How long figures are gathered: writing them took 32 ms, an epoch on stored features takes 17."""
LONGEST = 6000
"""Characters of a parameter that MLflow takes."""
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class Store:
    """Writes the runs of one study; a run is a trial.

    Args:
        directory: The study directory.
        study: Its name, which the experiment gets.

    Raises:
        PluginError: When MLflow cannot be told of the directory's path.
    """

    def __init__(self, directory: Path, study: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        folder = directory / "mlflow"
        url = _url(folder / "mlflow.db")
        folder.mkdir(parents=True, exist_ok=True)
        self._study = study
        self._runs: dict[int, str] = {}
        self._gathered: dict[str, list[Metric]] = {}
        self._flushed = time.monotonic()
        with FileLock(folder / "mlflow.db.lock"):  # two workers must not create it at once
            self._client: MlflowClient = MlflowClient(url)
            found = self._client.get_experiment_by_name(study)
            self._experiment = (
                found.experiment_id
                if found
                else self._client.create_experiment(study, (folder / "artifacts").as_uri())
            )

    def epoch(self, epoch: FinishedEpoch) -> None:
        """Log an epoch, at the latest with the trial's end."""
        run = self._run(epoch.number)
        figures = {
            f"{epoch.metric}/{epoch.phase}": epoch.value,
            f"train_loss/{epoch.phase}": epoch.train_loss,
            f"learning_rate/{epoch.phase}": epoch.learning_rate,
        }
        self._gather(run, figures, epoch.epoch)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def trial(self, trial: FinishedTrial) -> None:
        """Log what is known of a finished trial, and close its run."""
        from mlflow.entities import Param, RunTag

        run = self._run(trial.number)
        figures = {f"{trial.metric}/final": trial.value, **_validation(trial)}
        last = max(0, int(trial.attributes.get("epochs", 1)) - 1)
        known = {name: value for name, value in figures.items() if value is not None}
        self._gather(run, known, last)
        self._flush()
        spec = trial.attributes.get("spec", trial.params)
        params = [
            Param(name, _text(value)[:LONGEST]) for name, value in spec.items() if value is not None
        ]
        backbone = str(spec.get("backbone", ""))
        tags = {
            "state": trial.state,
            "framework": backbone.partition("/")[0],
            "device": trial.attributes.get("device"),
            "reason": trial.attributes.get("reason"),
        }
        said = [RunTag(name, str(value)) for name, value in tags.items() if value]
        self._client.log_batch(run, params=params, tags=said)
        self._client.set_terminated(run, _STATUS[trial.state])
        del self._runs[trial.number]

    def _run(self, number: int) -> str:
        if number not in self._runs:
            created = self._client.create_run(
                self._experiment,
                run_name=f"trial-{number:04d}",
                tags={"study": self._study, "trial": str(number)},
            )
            self._runs[number] = created.info.run_id
        return self._runs[number]

    def _gather(self, run: str, figures: Mapping[str, float], step: int) -> None:
        """Keep figures for later; the epochs of several trials may come in turn."""
        self._gathered.setdefault(run, []).extend(_metrics(figures, step))

    def _flush(self) -> None:
        while self._gathered:
            run, gathered = self._gathered.popitem()
            self._client.log_batch(run, metrics=gathered)
        self._flushed = time.monotonic()


@functools.cache
def open_store(directory: Path, study: str) -> Store:
    """Return the store of a study, opened once a process."""
    return Store(directory, study)


def _url(path: Path) -> str:
    text = str(path)
    if "?" in text or unquote(text) != text:  # MLflow decodes, SQLAlchemy cuts: no form survives
        raise PluginError(
            f"Expected a study directory without ? and without % before two hexadecimal digits, "
            f"which MLflow takes for another path, got {path.parent.parent}: rename that folder."
        )
    return f"sqlite:///{text}"


def _validation(trial: FinishedTrial) -> dict[str, float]:
    figures = trial.attributes.get("validation", {})
    return {f"validation/{name}": value for name, value in figures.items() if _is_number(value)}


def _metrics(figures: Mapping[str, float], step: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in figures.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
