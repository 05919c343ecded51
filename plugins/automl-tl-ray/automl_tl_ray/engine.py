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
from automl_tl_ray.options import check_reachable, checked
from automl_tl_ray.room import Node, divide, total
from automl_tl_ray.station import CORE, Station

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from automl_tl.specs import WorkerSettings

NOTICE_SECONDS = 10.0
"""How long a worker waits for a place before that is said."""
PLACE_SECONDS = 120.0
"""How long it waits until it counts as dead."""


class RayEngine:
    """Starts one actor a worker and merges what they say. See ``protocols.Engine``.

    Actors are never restarted by Ray: the search is told of each that died, fails its trials and
    starts the worker again, wherever there is room.

    Args:
        settings: What every worker is told.

    Raises:
        UsageError: For an option that cannot be right.
        EngineError: When there is no cluster, or no room in it.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        options = checked(settings.options)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray: Any = import_module("ray")
        self._ray = ray
        self._settings = settings
        self._actors: dict[int, Any] = {}
        self._placed: set[int] = set()
        self._messages: queue.Queue[tuple[int, Any, Mapping[str, Any]]] = queue.Queue()
        address = options.address or os.environ.get("RAY_ADDRESS")
        if address:
            check_reachable(address)
        try:
            context = ray.init(
                address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise EngineError(f"Ray cannot be used: {_first_line(error)}") from None
        nodes = [
            Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        gpus = options.gpus_per_trial
        if gpus is None:
            gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
        self._room = divide(nodes, settings.workers, 0.0 if settings.devices[0] == "cpu" else gpus)
        self.workers = self._room.workers
        self._describe(nodes, address or context.address_info["address"])

    def start(self, index: int) -> None:
        """Have an actor start a worker; its messages come in through a thread of their own."""
        if old := self._actors.pop(index, None):
            self._ray.kill(old)
        room = self._room
        station = self._ray.remote(concurrency_groups={"poll": 1, "send": 1})(Station)
        actor = station.options(
            num_cpus=room.threads,
            num_gpus=room.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        ).remote(
            index,
            self._settings.directory,
            room.threads,
            self._settings.setup(index),
            version(CORE),
        )
        self._actors[index] = actor
        self._placed.discard(index)
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
        errors, node = self._ray.exceptions, ""
        try:
            node = self._place(index, actor)
            self._placed.add(index)
            while True:
                poll = actor.poll.options(concurrency_group="poll").remote()
                for message in self._ray.get(poll):
                    self._messages.put((index, actor, _on_node(node, message)))
        except errors.GetTimeoutError:
            reason = f"the cluster had no room for it within {PLACE_SECONDS:g} s"
        except errors.RayError as error:
            reason = f"the node {node} is gone" if node else f"Ray says: {_first_line(error)}"
        self._ray.kill(actor)
        self._messages.put((index, actor, {"event": "died", "reason": reason}))

    def _place(self, index: int, actor: Any) -> str:
        """Return the name of the node that an actor was put on, once it was."""
        where = actor.where.remote()
        if not self._ray.wait([where], timeout=NOTICE_SECONDS)[0]:
            text = f"Worker {index} waits for room on the Ray cluster, for {self._room}."
            self._messages.put((index, actor, {"event": "warning", "text": text}))
        return str(self._ray.get(where, timeout=PLACE_SECONDS))

    def _describe(self, nodes: Sequence[Node], address: str) -> None:
        """Say what runs where, and whether that is less than was asked for."""
        has = f"{plural(len(nodes), 'node')}, {total(nodes)}"
        workers = plural(self.workers, "worker")
        text = f"Ray at {address} has {has}: {workers} with {self._room} each."
        event = "note"
        wanted = self._settings.workers
        if wanted and wanted > self.workers:
            event, text = "warning", f"{text[:-1]}; {wanted} do not fit."
        self._messages.put((0, None, {"event": event, "text": text}))


def _on_node(node: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message with the node's name where the person needs it."""
    if message["event"] == "fatal":
        return {**message, "reason": f"On the node {node}: {message['reason']}"}
    if message["event"] == "died":
        return {**message, "reason": f"{message['reason']} on the node {node}"}
    return message


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
