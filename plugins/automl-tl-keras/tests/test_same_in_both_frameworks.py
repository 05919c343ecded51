"""The same trial in Keras and in PyTorch, each in a process of its own, gives the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "sgd+rmsprop")
SCRIPT = Path(__file__).parent / "frameworks" / "trials.py"


def trials(folder, **wanted):
    """Train in both frameworks at the same time; returns the arrays of each."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    names = ("torch", "keras")
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, name, folder / f"{name}.npz", json.dumps(wanted)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return [np.load(folder / f"{name}.npz") for name in names]


def test_without_dropout_losses_and_logits_agree(tmp_path):
    pytest.importorskip("automl_tl_torch")
    torch, keras = trials(
        tmp_path, optimizers=OPTIMIZERS, seeds=[3], images=72, dropout=0.0, epochs=[2, 2]
    )
    for name in OPTIMIZERS:
        expected, found = (one[f"{name} 3 logits"] for one in (torch, keras))
        scale = np.abs(expected).max()
        assert np.abs(expected[1] - expected[3]).max() > 0.01 * scale, name
        assert np.abs(expected - found).max() <= 2e-4 * scale, name
        np.testing.assert_allclose(
            keras[f"{name} 3 losses"], torch[f"{name} 3 losses"], rtol=1e-4, err_msg=name
        )
    both, one = (torch[f"{name} 3 logits"] for name in ("sgd+rmsprop", "sgd"))
    assert np.array_equal(both[:2], one[:2])
    assert np.abs(both[3] - one[3]).max() > 1e-3, "fine-tuning has an optimizer of its own"


@pytest.mark.slow
def test_with_dropout_accuracies_differ_by_less_than_between_seeds(tmp_path):
    pytest.importorskip("automl_tl_torch")
    seeds = [0, 1, 2, 3, 4]
    both = trials(
        tmp_path, optimizers=["adam"], seeds=seeds, images=300, dropout=0.3, epochs=[20, 4]
    )
    torch, keras = (
        np.array([(one[f"adam {s} logits"][-1].argmax(1) == one["labels"]).mean() for s in seeds])
        for one in both
    )
    assert torch.mean() > 0.5
    spread = max(np.std(torch, ddof=1), np.std(keras, ddof=1))
    assert abs(torch.mean() - keras.mean()) < spread
