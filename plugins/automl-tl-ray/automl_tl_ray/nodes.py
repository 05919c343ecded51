"""The nodes of a Ray cluster."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node that lives as far as Ray knows.

    Attributes:
        cpus: What it has, as Ray counts it.
        gpus: Likewise.
        id: Ray's; another one when the node comes again.
        place: Host and port at which Ray listens there.
    """

    cpus: float
    gpus: float = 0.0
    id: str = ""
    place: tuple[str, int] = ("", 0)

    def answers(self) -> bool:
        """Whether Ray still listens there. Of a node that died Ray itself learns 10 s later."""
        try:
            socket.create_connection(self.place, ANSWER_SECONDS).close()
        except OSError:
            return False
        return True


def living(described: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Return the nodes that live, of what ``ray.nodes()`` returned."""
    return [
        Node(
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            id=node["NodeID"],
            place=(node["NodeManagerAddress"], node["NodeManagerPort"]),
        )
        for node in described
        if node["Alive"]
    ]


def total(nodes: Sequence[Node]) -> str:
    """Say what nodes have together."""
    cpus, gpus = int(sum(n.cpus for n in nodes)), int(sum(n.gpus for n in nodes))
    return f"{plural(cpus, 'CPU')} and {plural(gpus, 'GPU')}"
