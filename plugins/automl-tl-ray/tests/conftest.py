"""A cluster, and the real command line over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class TwoNodes:
    """See ``two_nodes``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_nodes.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def tell(self, what: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._answer() == "done"

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def _answer(self) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.startswith("[") and "raylet" not in line:  # Ray prints what it likes
                return line.strip()
        raise AssertionError("the cluster ended")


class Searcher:
    """Runs ``automl-tl`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "AUTOML_TL_CACHE": str(folder / "cache"),
            "NO_COLOR": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "automl_tl", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def show(self, study: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run("show", study, "--json"))
        return facts


def trial_processes(*folders: Path) -> list[psutil.Process]:
    """Return the processes that run trials with caches below these folders."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        line, environ = process.info["cmdline"] or [], process.info["environ"] or {}
        cache = environ.get("AUTOML_TL_CACHE", "")
        ours = any(cache.startswith(str(folder)) for folder in folders)
        runs = "automl_tl.worker_process" in line or "automl_tl.hosted" in line
        if ours and runs and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path_factory.mktemp("cluster"))
    yield nodes
    nodes.close()


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    return Searcher(tmp_path)
