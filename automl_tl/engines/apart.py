"""An engine in a process of its own, for one whose library is not fit to live in a search.

Such a library catches signals, prints, waits for minutes or ends its process. Here it may: what it
prints goes to a log, and it dies with the search, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automl_tl.errors import AutoMLError, EngineError
from automl_tl.ipc import Channel, Child, parent_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from automl_tl.protocols import Engine
    from automl_tl.specs import WorkerSettings

START_SECONDS = 120.0
"""How long an engine may take to be made."""
END_SECONDS = 3.0
"""What it gets to end, beside the grace of its workers."""


class Apart:
    """An engine that another process runs. See ``protocols.Engine``.

    Args:
        settings: What its workers are told.
        module: Run with ``python -m``; it calls ``serve``.
        name: Of the engine; what its process prints goes to ``logs/NAME.log`` of the study.

    Raises:
        AutoMLError: What making the engine raised there.
        EngineError: When it was not made in time, or its process died.
    """

    def __init__(self, settings: WorkerSettings, module: str, name: str) -> None:
        self._settings = settings
        self._name = name
        self._log = settings.directory / "logs" / f"{name}.log"
        self._started: set[int] = set()
        self._ended = False
        self._child = Child(module, log=self._log)
        try:
            self._child.channel.send(replace(settings, setup=_nothing))
            answer = self._child.channel.receive(START_SECONDS)
        except EOFError:
            raise EngineError(self._ending()) from None
        except TimeoutError:
            self._child.close(0)
            late = f"The engine {name} was not ready after {START_SECONDS:g} s"
            raise EngineError(f"{late}: see {self._log}.") from None
        if isinstance(answer, AutoMLError):
            self._child.close(END_SECONDS)
            raise answer
        self.workers = int(answer)

    def start(self, index: int) -> None:
        """Start a worker, or start it again."""
        self._started.add(index)
        self._order("start", index, self._settings.setup(index))

    def poll(self, timeout: float) -> list[tuple[int, Mapping[str, Any]]]:
        """Return what came in, waiting up to ``timeout`` seconds for the first message."""
        if self._ended:
            time.sleep(timeout)
            return []
        found: list[tuple[int, Mapping[str, Any]]] = []
        try:
            while True:
                found.append(self._child.channel.receive(0 if found else timeout))
        except TimeoutError:
            return found
        except EOFError:
            self._ended = True
            reason = self._ending()
            died = {"event": "died", "reason": reason}
            fatal = {"event": "fatal", "reason": reason}
            return [*found, (0, fatal), *((index, died) for index in sorted(self._started))]

    def send(self, index: int, message: Mapping[str, Any]) -> None:
        """Send a message to a worker, if it lives."""
        self._order("send", index, dict(message))

    def close(self, grace: float) -> None:
        """End all workers and the engine's process, after ``grace`` seconds by force."""
        self._order("close", grace)
        with suppress(subprocess.TimeoutExpired):
            self._child.process.wait(grace + END_SECONDS)
        self._child.close(0)

    def _order(self, what: str, *arguments: Any) -> None:
        with suppress(EOFError):  # ``poll`` tells of it
            self._child.channel.send((what, arguments))

    def _ending(self) -> str:
        how = self._child.ending()
        return f"The process of the engine {self._name} ended ({how}): see {self._log}."


def serve(create: Callable[[WorkerSettings], Engine]) -> None:
    """Make an engine and do what an ``Apart`` says, and then end this process.

    The engine is told what to do in the main thread, and is polled in another.

    Args:
        create: As ``EngineSpec.create``. ``WorkerSettings.setup`` works within ``Engine.start``.
    """
    channel = parent_channel()
    code = 1
    try:
        _obey(create, channel)
        code = 0
    except AutoMLError as error:
        channel.send(error)
    except BaseException:  # also what a library raises to end the interpreter
        traceback.print_exc()
    os._exit(code)  # whatever threads the engine's library still has


def _obey(create: Callable[[WorkerSettings], Engine], channel: Channel) -> None:
    first: dict[int, Any] = {}
    settings: WorkerSettings = channel.receive()
    engine = create(replace(settings, setup=first.__getitem__))
    channel.send(engine.workers)
    threading.Thread(target=_relay, args=(engine, channel), daemon=True).start()
    while True:
        what, arguments = channel.receive()
        if what == "start":
            index, message = arguments
            first[index] = message
            engine.start(index)
        elif what == "send":
            engine.send(*arguments)
        else:
            engine.close(*arguments)
            return


def _relay(engine: Engine, channel: Channel) -> None:
    with suppress(EOFError):
        while True:
            for said in engine.poll(1.0):
                channel.send(said)


def _nothing(index: int) -> None:
    """Stand for what cannot be handed to another process."""
