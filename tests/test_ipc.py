"""Child processes: when they end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.data.squares import Squares
from automl_tl.ipc import Child

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.kill()
        child.close()


def ask(child: Child, number: int) -> Any:
    child.channel.send((number, (("nowhere.png", 32, "squash"),)))
    return child.channel.receive()[0]


def test_a_child_outlives_the_thread_that_started_it(children: list[Child]) -> None:
    threads = []

    def start() -> None:
        threads.append(threading.get_native_id())
        child = Child("automl_tl.data.decoding")
        children.append(child)
        child.channel.send((Squares(), 1))
        assert ask(child, 1) == 1

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{threads[0]}").exists():  # the kernel's signal comes with its end
        time.sleep(0.01)
    assert ask(children[0], 2) == 2
