"""The hooks of the TensorBoard plugin. Importing this module does not import TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.specs import FinishedEpoch, FinishedTrial


def log_file(directory: Path, number: int) -> Path:
    """Return the event file of a trial; its folder is what TensorBoard calls a run."""
    return directory / "tensorboard" / f"trial-{number:04d}" / "events.out.tfevents.0.automl-tl"


@hookimpl
def automl_tl_epoch_finished(epoch: FinishedEpoch) -> None:
    """Log an epoch's figures, a tag for each phase."""
    from automl_tl_tensorboard import events

    scalars = {
        f"{epoch.metric}/{epoch.phase}": epoch.value,
        f"train_loss/{epoch.phase}": epoch.train_loss,
        f"learning_rate/{epoch.phase}": epoch.learning_rate,
    }
    events.append(log_file(epoch.directory, epoch.number), [events.scalars(scalars, epoch.epoch)])


@hookimpl
def automl_tl_trial_finished(trial: FinishedTrial) -> None:
    """Log a trial's parameters and its last figure."""
    from automl_tl_tensorboard import events

    spec = trial.attributes.get("spec", trial.params)
    written = [events.hparams(spec, trial.state)]
    if trial.value is not None:
        last = max(0, int(trial.attributes.get("epochs", 1)) - 1)
        written.append(events.scalars({f"{trial.metric}/final": trial.value}, last))
    events.append(log_file(trial.directory, trial.number), written)
