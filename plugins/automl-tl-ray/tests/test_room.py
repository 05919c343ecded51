"""How a cluster is divided among workers."""

from __future__ import annotations

import pytest

from automl_tl.errors import EngineError
from automl_tl_ray.nodes import Node
from automl_tl_ray.room import Room, divide

TWO = [Node(2), Node(2)]
GPUS = [Node(16, 2), Node(8, 1)]


@pytest.mark.parametrize(
    ("nodes", "wanted", "gpus", "room"),
    [
        (TWO, None, 0, Room(2, 2, 0)),
        (TWO, 1, 0, Room(1, 2, 0)),
        (TWO, 3, 0, Room(3, 1, 0)),
        (TWO, 4, 0, Room(4, 1, 0)),
        (TWO, 9, 0, Room(4, 1, 0)),
        ([Node(0), Node(4)], None, 0, Room(1, 4, 0)),
        ([Node(2), Node(64)], None, 0, Room(2, 32, 0)),
        (GPUS, None, 1, Room(3, 8, 1)),
        (GPUS, None, 0.25, Room(12, 2, 0.25)),
        (GPUS, None, 0.3, Room(9, 2, 0.3)),
        (GPUS, 2, 1, Room(2, 8, 1)),
        (GPUS, None, 2, Room(1, 16, 2)),
        ([Node(2, 4)], None, 1, Room(2, 1, 1)),
    ],
)
def test_as_many_threads_as_let_all_workers_run(
    nodes: list[Node], wanted: int | None, gpus: float, room: Room
) -> None:
    assert divide(nodes, wanted, gpus) == room


@pytest.mark.parametrize(
    ("nodes", "gpus", "wants"),
    [([], 0, "1 CPU for"), ([Node(0, 8)], 1, "1 CPU and 1 GPU for"), (TWO, 0.5, "0.5 of a GPU")],
)
def test_a_cluster_without_room_for_one_worker_is_refused(
    nodes: list[Node], gpus: float, wants: str
) -> None:
    with pytest.raises(EngineError, match=wants):
        divide(nodes, None, gpus)
