"""Runs the real command line, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_ONE = ("depth=0", "head_units=[]", "dropout=0", "optimizer=adam", "learning_rate=0.01")
_HEAD = ("weight_decay=0", "batch_size=16", "label_smoothing=0")
ONE_HEAD = tuple(part for setting in (*_ONE, *_HEAD) for part in ("--set", setting))
"""Options that leave nothing of a frozen trial to be searched but its epochs."""


class CommandLine:
    """Runs ``automl-tl`` as a user does."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "AUTOML_TL_CACHE": str(cache), "NO_COLOR": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self._start("-m", "automl_tl", *arguments)

    def python(self, *arguments: str) -> str:
        return self._finish(self._start(*arguments), 0)

    def under(self, command: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
        """Start it by another program, such as ``("nice", "-n", "10")``."""
        return self._start("-m", "automl_tl", *arguments, command=command)

    def _start(self, *arguments: str, command: Sequence[str] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, sys.executable, *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        return self._finish(self.start(*arguments), code)

    def _finish(self, process: subprocess.Popen[str], code: int) -> str:
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out if code == 0 else err

    def show(self, study: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run("show", study, "--json"))
        return facts


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process and everything it started."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]
