"""What was written, as TensorBoard itself reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.specs import FinishedEpoch, FinishedTrial
from automl_tl_tensorboard.plugin import automl_tl_epoch_finished, automl_tl_trial_finished

if TYPE_CHECKING:
    from pathlib import Path

# In a process of its own: TensorBoard imports TensorFlow where it finds it, unless told not to.
READ = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

run = EventAccumulator(sys.argv[1]).Reload()
found = {"scalars": {t: [(e.step, e.value) for e in run.Scalars(t)] for t in run.Tags()["scalars"]}}
data = run.PluginTagToContent("hparams")
if data:
    start = metadata.parse_session_start_info_plugin_data(data[metadata.SESSION_START_INFO_TAG])
    found["hparams"] = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    end = metadata.parse_session_end_info_plugin_data(data[metadata.SESSION_END_INFO_TAG])
    found["status"] = end.status
print(json.dumps(found))
"""
WRITE = """
import sys
from pathlib import Path
from automl_tl_tensorboard import events
written = [events.scalars({"a": 1.0}, 0), events.hparams({"b": 1}, "failed")]
events.append(Path(sys.argv[1]), written)
print([m for m in ("tensorflow", "torch", "keras") if m in sys.modules])
"""
SPEC = {
    "backbone": "torch/tiny",
    "depth": None,
    "head_units": [64, 32],
    "flip": False,
    "learning_rate": 0.01,
    "epochs": 2,
}


def read(folder: Path) -> dict[str, Any]:
    arguments = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def epoch(directory: Path, number: int, index: int, phase: Any) -> FinishedEpoch:
    value, loss = 0.5 + index / 4, 1 / (index + 1)
    return FinishedEpoch("s", directory, number, phase, index, 3, "macro_f1", value, loss, 0.01, 1)


def test_a_trial_is_read_back(tmp_path: Path) -> None:
    for index, phase in enumerate(("warm-up", "fine-tuning", "fine-tuning")):
        automl_tl_epoch_finished(epoch(tmp_path, 7, index, phase))
    facts = {"spec": SPEC, "epochs": 3}
    automl_tl_trial_finished(FinishedTrial("s", tmp_path, 7, "complete", "macro_f1", 1, {}, facts))

    found = read(tmp_path / "tensorboard" / "trial-0007")
    assert found["scalars"] == {
        "macro_f1/warm-up": [[0, 0.5]],
        "macro_f1/fine-tuning": [[1, 0.75], [2, 1.0]],
        "macro_f1/final": [[2, 1.0]],
        "train_loss/warm-up": [[0, 1.0]],
        "train_loss/fine-tuning": [[1, 0.5], [2, pytest.approx(1 / 3)]],
        "learning_rate/warm-up": [[0, pytest.approx(0.01)]],
        "learning_rate/fine-tuning": [[1, pytest.approx(0.01)], [2, pytest.approx(0.01)]],
    }
    assert found["hparams"] == {
        "backbone": "torch/tiny",
        "head_units": "64, 32",
        "flip": False,
        "learning_rate": 0.01,
        "epochs": 2,
    }
    assert found["status"] == 1  # STATUS_SUCCESS


def test_a_trial_that_failed_at_once_has_its_parameters(tmp_path: Path) -> None:
    automl_tl_trial_finished(
        FinishedTrial("s", tmp_path, 0, "failed", "accuracy", None, {"dropout": 0.5}, {})
    )
    found = read(tmp_path / "tensorboard" / "trial-0000")
    assert found == {"scalars": {}, "hparams": {"dropout": 0.5}, "status": 2}


def test_writing_imports_no_framework(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WRITE, str(tmp_path / "run" / "events.out.tfevents.0")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert read(tmp_path / "run")["scalars"] == {"a": [[0, 1.0]]}
