"""A worker on the node where Ray puts it. Lives in a Ray actor; imports no Ray itself."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from automl_tl.engines.local import LocalEngine
from automl_tl.specs import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POLL_SECONDS = 10.0
CORE = "automl-tl"


class Station:
    """Starts one worker as a process on this node and relays what it says.

    Args:
        index: Of the worker.
        directory: The study directory.
        threads: Its CPU threads.
        first: Its first message.
        expected: Version of automl-tl that sent it.
    """

    def __init__(
        self, index: int, directory: Path, threads: int, first: Any, expected: str
    ) -> None:
        self._index = index
        self._waiting: list[Mapping[str, Any]] = []
        os.environ["OMP_NUM_THREADS"] = str(threads)
        settings = WorkerSettings(directory, ("auto",), threads, lambda _: first)
        self._engine = LocalEngine(settings)
        reason, here = None, version(CORE)
        if here != expected:
            reason = f"there is {CORE} {here}, the search has {expected}: install the same."
        elif not (directory / "logs").is_dir():
            reason = f"there is no {directory}: put the study into a folder that all nodes share."
        if reason:
            self._waiting.append({"event": "fatal", "reason": reason})
        else:
            self._engine.start(index)

    def where(self) -> str:
        """Return the name of the node."""
        return socket.gethostname()

    def poll(self) -> list[Mapping[str, Any]]:
        """Return what the worker said, after some seconds even when that is nothing."""
        waiting, self._waiting = self._waiting, []
        return waiting or [message for _, message in self._engine.poll(POLL_SECONDS)]

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the worker."""
        self._engine.send(self._index, message)

    def close(self, grace: float) -> None:
        """End the worker, after ``grace`` seconds by force."""
        self._engine.close(grace)
