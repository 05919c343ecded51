"""The hooks of the MLflow plugin. Importing this module does not import MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl

if TYPE_CHECKING:
    from automl_tl.specs import FinishedEpoch, FinishedTrial


@hookimpl
def automl_tl_epoch_finished(epoch: FinishedEpoch) -> None:
    """Log an epoch's figures; the first one opens the trial's run."""
    from automl_tl_mlflow.runs import open_store

    open_store(epoch.directory, epoch.study).epoch(epoch)


@hookimpl
def automl_tl_trial_finished(trial: FinishedTrial) -> None:
    """Log a trial's parameters and figures, and close its run."""
    from automl_tl_mlflow.runs import open_store

    open_store(trial.directory, trial.study).trial(trial)
