"""The engine ``ray``: each worker is started by a Ray actor, on a node with room for it."""

from __future__ import annotations

import logging
import os
import queue
import threading
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from automl_tl.errors import EngineError
from automl_tl.units import plural
from automl_tl_ray.nodes import living, total
from automl_tl_ray.options import checked
from automl_tl_ray.room import divide
from automl_tl_ray.station import CORE, Station

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automl_tl.specs import WorkerSettings

NOTICE_SECONDS = 10.0
"""How long a worker waits for a place before that is said."""
PLACE_SECONDS = 120.0
"""How long it waits until it counts as dead."""


class RayEngine:
    """Starts one actor a worker and merges what they say. See ``protocols.Engine``.

    Ray never starts an actor again: the search is told of each that died, fails its trials and
    starts the worker again, wherever there is room.

    Args:
        settings: What every worker is told.

    Raises:
        UsageError: For an option that cannot be right.
        EngineError: When there is no cluster, or no room in it.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        options = checked(settings.options)
        self._settings = settings
        self._actors: dict[int, Any] = {}
        self._placed: set[int] = set()
        self._messages: queue.Queue[tuple[int, Any, Mapping[str, Any]]] = queue.Queue()
        self._address = options.address
        self._ray = _connect(options.address)
        nodes = living(self._ray.nodes())
        gpus = options.gpus_per_trial
        if gpus is None:
            gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
        self._room = divide(nodes, settings.workers, 0.0 if settings.devices[0] == "cpu" else gpus)
        self.workers = self._room.workers
        has = f"{plural(len(nodes), 'node')} with {total(nodes)}"
        text = f"Ray has {has}: {plural(self.workers, 'worker')} with {self._room} each"
        fewer = self.workers < (settings.workers or 0)
        self._news: dict[str, Any] | None = {
            "event": "warning" if fewer else "note",
            "text": f"{text}; {settings.workers} do not fit." if fewer else f"{text}.",
        }

    def start(self, index: int) -> None:
        """Have an actor start a worker; its messages come in through a thread of their own."""
        if self._news:
            self._say(index, None, self._news)
            self._news = None
        again = index in self._actors
        if again:
            self._ray.kill(self._actors.pop(index))
        self._placed.discard(index)
        station = self._ray.remote(concurrency_groups={"poll": 1, "send": 1})(Station)
        actor = station.options(
            num_cpus=self._room.threads,
            num_gpus=self._room.gpus,
            scheduling_strategy="SPREAD",
            label_selector=self._not_on_dead_nodes() if again else None,
            max_restarts=0,
        ).remote(
            index,
            self._settings.directory,
            self._room.threads,
            self._settings.setup(index),
            version(CORE),
        )
        self._actors[index] = actor
        threading.Thread(target=self._listen, args=(index, actor), daemon=True).start()

    def poll(self, timeout: float) -> list[tuple[int, Mapping[str, Any]]]:
        """Return what came in, waiting up to ``timeout`` seconds for the first message."""
        found: list[tuple[int, Mapping[str, Any]]] = []
        try:
            while True:
                index, actor, message = self._messages.get(timeout=0 if found else timeout)
                if actor is None or self._actors.get(index) is actor:
                    found.append((index, message))
        except queue.Empty:
            return found

    def send(self, index: int, message: Mapping[str, Any]) -> None:
        """Send a message to a worker, if it lives."""
        if actor := self._actors.get(index):
            with suppress(self._ray.exceptions.RayError):
                actor.send.options(concurrency_group="send").remote(dict(message))

    def close(self, grace: float) -> None:
        """End all workers, after ``grace`` seconds by force, and leave the cluster."""
        actors, self._actors = self._actors, {}
        ends = [actors[index].close.remote(grace) for index in self._placed & actors.keys()]
        if ends:
            self._ray.wait(ends, num_returns=len(ends), timeout=grace)
        for actor in actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def _listen(self, index: int, actor: Any) -> None:
        errors, name = self._ray.exceptions, ""
        try:
            name = self._place(index, actor)
            self._placed.add(index)
            while True:
                poll = actor.poll.options(concurrency_group="poll").remote()
                for message in self._ray.get(poll):
                    self._say(index, actor, _on_node(name, message))
        except errors.GetTimeoutError:
            reason = f"the cluster had no room for it within {PLACE_SECONDS:g} s"
        except errors.RayError as error:
            reason = f"the node {name} is gone" if name else f"Ray says: {_first_line(error)}"
        self._ray.kill(actor)
        self._say(index, actor, {"event": "died", "reason": reason})

    def _place(self, index: int, actor: Any) -> str:
        """Return the name of the node that an actor was put on, once it was."""
        where = actor.where.remote()
        if not self._ray.wait([where], timeout=NOTICE_SECONDS)[0]:
            text = f"Worker {index} waits for room on the Ray cluster: {self._room}."
            self._say(index, actor, {"event": "warning", "text": text})
        return str(self._ray.get(where, timeout=PLACE_SECONDS))

    def _not_on_dead_nodes(self) -> dict[str, str] | None:
        """Return what keeps an actor off nodes whose death Ray has not noticed yet."""
        if self._address and self._address.startswith("ray://"):  # nodes cannot be reached then
            return None
        gone = [node.id for node in living(self._ray.nodes()) if not node.answers()]
        return {"ray.io/node-id": f"!in({','.join(gone)})"} if gone else None

    def _say(self, index: int, actor: Any, message: Mapping[str, Any]) -> None:
        self._messages.put((index, actor, message))


def _connect(address: str | None) -> Any:
    """Connect to a cluster, or start one on this machine when there is no address; returns Ray.

    Raises:
        EngineError: When that does not succeed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_module("ray")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EngineError(f"Ray cannot be used: {_first_line(error)}.") from None
    return ray


def _on_node(name: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message with the node's name where a person needs it."""
    if message["event"] == "fatal":
        return {**message, "reason": f"On the node {name}: {message['reason']}"}
    if message["event"] == "died":
        return {**message, "reason": f"{message['reason']} on the node {name}"}
    return message


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
