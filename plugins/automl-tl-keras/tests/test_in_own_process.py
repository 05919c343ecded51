"""Runs the tests in ``keras/``: a process that holds torch cannot hold TensorFlow too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "keras"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("framework", "tests"),
    [
        ("tensorflow", FOLDER),
        ("torch", FOLDER / "test_any_framework.py"),
        ("jax", FOLDER / "test_any_framework.py"),
    ],
)
def test_with_keras(framework: str, tests: Path) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    environment = {
        **os.environ,
        "AUTOML_TL_KERAS_TESTS": "1",
        "KERAS_BACKEND": framework,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", tests, "-q", "-p", "no:cacheprovider"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=FOLDER.parents[3],
    )
    assert done.returncode == 0, done.stdout + done.stderr
