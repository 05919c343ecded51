"""How many workers fit on a cluster, and with how many CPU threads each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_tl.errors import EngineError
from automl_tl.units import plural
from automl_tl_ray.nodes import total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from automl_tl_ray.nodes import Node


@dataclass(frozen=True, slots=True)
class Room:
    """The workers of a search.

    Attributes:
        workers: How many.
        threads: CPUs of each.
        gpus: GPUs of each, of whole ones or a share of one.
    """

    workers: int
    threads: int
    gpus: float

    def __str__(self) -> str:
        """Say what one worker has."""
        parts = [plural(self.threads, "CPU")]
        if self.gpus:
            share = f"{self.gpus:g} of a GPU" if self.gpus < 1 else plural(int(self.gpus), "GPU")
            parts.append(share)
        return " and ".join(parts)


def divide(nodes: Sequence[Node], wanted: int | None, gpus: float) -> Room:
    """Divide a cluster: as many threads a worker as let all workers run at once.

    Args:
        nodes: Those that live.
        wanted: Number of workers; None for one a GPU, or a share of one, or else one a node.
        gpus: GPUs a worker, 0 for none.

    Raises:
        EngineError: When not even one worker fits.
    """
    most = _fit(nodes, 1, gpus)
    if most == 0:
        raise EngineError(
            f"Expected a Ray cluster with a node that has {Room(1, 1, gpus)} for a worker, got "
            f"{plural(len(nodes), 'node')} with {total(nodes)} in all."
        )
    default = most if gpus else sum(node.cpus >= 1 for node in nodes)
    workers = min(wanted or default, most)
    threads = int(max(node.cpus for node in nodes))
    while _fit(nodes, threads, gpus) < workers:
        threads -= 1
    return Room(workers, threads, gpus)


def _fit(nodes: Sequence[Node], threads: int, gpus: float) -> int:
    return sum(min(int(node.cpus // threads), _shares(node, gpus)) for node in nodes)


def _shares(node: Node, gpus: float) -> int:
    """How many workers the GPUs of a node hold; a share never spans two GPUs."""
    if not gpus:
        return int(node.cpus)
    if gpus < 1:
        return int(node.gpus) * math.floor(1 / gpus + 1e-9)
    return math.floor(node.gpus / gpus + 1e-9)
