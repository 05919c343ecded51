"""The engine ``local``: workers are processes on this machine."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from automl_tl.errors import AutoMLError
from automl_tl.ipc import Child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from automl_tl.specs import WorkerSettings


class LocalEngine:
    """Starts one process a worker and merges what they say. See ``protocols.Engine``.

    Args:
        settings: What every worker is told.
        command: What starts each process, in front of its own command line, and hands its standard
            input and output through: ``("srun",)``, ``("nice", "-n", "10")``.
    """

    def __init__(self, settings: WorkerSettings, command: Sequence[str] = ()) -> None:
        self.workers = len(settings.devices)
        self._settings = settings
        self._command = tuple(command)
        self._children: dict[int, Child] = {}
        self._messages: queue.Queue[tuple[int, Child, Mapping[str, Any]]] = queue.Queue()

    def start(self, index: int) -> None:
        """Start a worker; its messages come in through a thread of their own."""
        settings = self._settings
        if old := self._children.pop(index, None):
            old.close(0)
        child = Child(
            "automl_tl.worker_process",
            log=settings.directory / "logs" / f"worker-{index}.log",
            command=self._command,
        )
        self._children[index] = child
        with suppress(EOFError):  # it ended at once, which ``_listen`` tells
            child.channel.send(settings.setup(index))
        threading.Thread(target=self._listen, args=(index, child), daemon=True).start()

    def poll(self, timeout: float) -> list[tuple[int, Mapping[str, Any]]]:
        """Return what came in, waiting up to ``timeout`` seconds for the first message."""
        found: list[tuple[int, Mapping[str, Any]]] = []
        try:
            while True:
                index, child, message = self._messages.get(timeout=0 if found else timeout)
                if self._children.get(index) is child:
                    found.append((index, message))
        except queue.Empty:
            return found

    def send(self, index: int, message: Mapping[str, Any]) -> None:
        """Send a message to a worker, if it lives."""
        child = self._children.get(index)
        if child:
            with suppress(EOFError):
                child.channel.send(dict(message))

    def close(self, grace: float) -> None:
        """End all workers: close their pipes, and kill what still runs after ``grace`` seconds."""
        children, self._children = self._children, {}
        for child in children.values():
            child.hang_up()
        end = time.monotonic() + grace
        for child in children.values():
            child.close(max(0.0, end - time.monotonic()))

    def _listen(self, index: int, child: Child) -> None:
        try:
            while True:
                self._messages.put((index, child, child.channel.receive()))
        except EOFError:
            message = {"event": "died", "reason": child.ending()}
            self._messages.put((index, child, message))
        except AutoMLError as error:
            self._messages.put((index, child, {"event": "died", "reason": str(error)}))
