"""Runs the tests in ``keras/``: a process that holds torch cannot hold TensorFlow too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(1800)
def test_with_keras() -> None:
    folder = Path(__file__).parent / "keras"
    environment = {
        **os.environ,
        "AUTOML_TL_KERAS_TESTS": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", folder, "-q", "-p", "no:cacheprovider"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=folder.parents[3],
    )
    assert done.returncode == 0, done.stdout + done.stderr
