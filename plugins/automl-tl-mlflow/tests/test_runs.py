"""What was written, as MLflow's own client reads it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.errors import PluginError
from automl_tl.specs import FinishedEpoch, FinishedTrial
from automl_tl_mlflow.plugin import automl_tl_epoch_finished, automl_tl_trial_finished

if TYPE_CHECKING:
    from pathlib import Path

SPEC = {"backbone": "keras/Tiny", "depth": None, "head_units": (64, 32), "learning_rate": 0.01}
VALIDATION = {"accuracy": 0.75, "log_loss": 0.5, "n": 10}
WORKER = """
import sys
from pathlib import Path
from automl_tl.specs import FinishedTrial
from automl_tl_mlflow.plugin import automl_tl_trial_finished
number = int(sys.argv[2])
automl_tl_trial_finished(
    FinishedTrial("s", Path(sys.argv[1]), number, "complete", "accuracy", 0.5, {}, {})
)
"""


def runs(directory: Path, study: str = "s") -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a complete, a pruned and a failed trial."""
    path = tmp_path_factory.mktemp("study")
    for number, phases in enumerate((("warm-up", "fine-tuning", "fine-tuning"), ("warm-up",))):
        for index, phase in enumerate(phases):
            value = 0.5 + index / 8
            automl_tl_epoch_finished(
                FinishedEpoch(
                    "s", path, number, phase, index, 3, "accuracy", value, 1 - value, 0.01, 1.0
                )
            )
        state = ("complete", "pruned")[number]
        facts = {"spec": SPEC, "epochs": len(phases), "device": "cpu"}
        facts |= {"validation": VALIDATION} if number == 0 else {}
        automl_tl_trial_finished(
            FinishedTrial("s", path, number, state, "accuracy", value, {}, facts)
        )
    automl_tl_trial_finished(
        FinishedTrial("s", path, 2, "failed", "accuracy", None, {}, {"reason": "out of memory"})
    )
    return path


def test_a_trial_is_a_run_with_parameters_figures_and_tags(directory: Path) -> None:
    found = runs(directory)
    assert sorted(found) == ["trial-0000", "trial-0001", "trial-0002"]
    complete = found["trial-0000"]
    assert complete.info.status == "FINISHED"
    assert complete.data.params == {
        "backbone": "keras/Tiny",
        "head_units": "64, 32",
        "learning_rate": "0.01",
    }
    assert complete.data.metrics == {
        "accuracy/warm-up": 0.5,
        "accuracy/fine-tuning": 0.75,
        "accuracy/final": 0.75,
        "train_loss/warm-up": 0.5,
        "train_loss/fine-tuning": 0.25,
        "learning_rate/warm-up": 0.01,
        "learning_rate/fine-tuning": 0.01,
        "validation/accuracy": 0.75,
        "validation/log_loss": 0.5,
        "validation/n": 10,
    }
    tags = {"study": "s", "trial": "0", "state": "complete", "framework": "keras", "device": "cpu"}
    assert tags.items() <= complete.data.tags.items()


def test_an_epoch_is_a_step(directory: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow' / 'mlflow.db'}")
    run = runs(directory)["trial-0000"].info.run_id
    history = client.get_metric_history(run, "accuracy/fine-tuning")
    assert [(one.step, one.value) for one in history] == [(1, 0.625), (2, 0.75)]


def test_trials_whose_epochs_come_in_turn_keep_them_apart(directory: Path) -> None:
    """As those of heads do that train together."""
    from mlflow.tracking import MlflowClient

    values = {0: [0.1, 0.2], 1: [0.6, 0.7]}
    for index in range(2):
        for number, reached in values.items():
            value = reached[index]
            automl_tl_epoch_finished(
                FinishedEpoch("t", directory, number, "warm-up", index, 2, "f1", value, *[0.0] * 3)
            )
    for number in values:
        automl_tl_trial_finished(
            FinishedTrial("t", directory, number, "complete", "f1", 0.5, {}, {})
        )
    client = MlflowClient(f"sqlite:///{directory / 'mlflow' / 'mlflow.db'}")
    for name, run in runs(directory, "t").items():
        history = client.get_metric_history(run.info.run_id, "f1/warm-up")
        assert [one.value for one in history] == values[int(name[-1])]


def test_pruned_and_failed_trials_say_so(directory: Path) -> None:
    found = runs(directory)
    pruned, failed = found["trial-0001"], found["trial-0002"]
    assert (pruned.info.status, pruned.data.tags["state"]) == ("KILLED", "pruned")
    assert pruned.data.metrics["accuracy/final"] == 0.5
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "out of memory")
    assert failed.data.metrics == {}


def test_two_workers_may_begin_at_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    assert sorted(runs(tmp_path)) == ["trial-0000", "trial-0001"]


@pytest.mark.parametrize("name", ["100% c#", "a&b=c;d+e@f"])
def test_a_folder_may_have_other_characters(tmp_path: Path, name: str) -> None:
    automl_tl_trial_finished(
        FinishedTrial("s", tmp_path / name, 0, "complete", "accuracy", 0.5, {}, {})
    )
    assert sorted(runs(tmp_path / name)) == ["trial-0000"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["what?", "50%20"])
def test_a_folder_that_mlflow_would_take_for_another_is_refused(tmp_path: Path, name: str) -> None:
    trial = FinishedTrial("s", tmp_path / name, 0, "complete", "accuracy", 0.5, {}, {})
    with pytest.raises(PluginError, match=r"Expected a study directory without \? and without %"):
        automl_tl_trial_finished(trial)
    assert list(tmp_path.iterdir()) == []
