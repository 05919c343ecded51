"""What the engine takes and refuses."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.engines import apart
from automl_tl.errors import EngineError, UsageError
from automl_tl.specs import WorkerSettings
from automl_tl_ray.options import Options, check_reachable, checked
from automl_tl_ray.plugin import create

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://head:10001", "auto", "[::1]:6379"])
def test_addresses_as_ray_takes_them(address: str) -> None:
    options = {"address": address, "gpus_per_trial": 0.25}
    assert checked(options) == Options(address, 0.25)


@pytest.mark.parametrize("address", ["head", "http://head:1", "head:port", "head:99999", "", 6379])
def test_other_addresses_are_refused(address: Any) -> None:
    with pytest.raises(UsageError, match="Expected --address HOST:PORT"):
        checked({"address": address})


@pytest.mark.parametrize(
    "gpus", [0, -1, 1.5, float("nan"), float("inf"), pytest.param(10**400, id="huge"), "1", True]
)
def test_gpus_that_ray_does_not_have_are_refused(gpus: Any) -> None:
    with pytest.raises(UsageError, match="Expected --gpus-per-trial"):
        checked({"gpus_per_trial": gpus})


def test_nobody_at_an_address_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(EngineError, match=f"No Ray cluster answers at {address}"):
            check_reachable(address)
    assert time.monotonic() - began < 10  # Ray itself tries for two minutes


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        ("", "raylet_ipc_client.cc:85: Failed to connect", "is no node of the Ray cluster at h:1:"),
        ("raylet_ipc_client.cc:85: Failed to connect", "other", "see the log"),
    ],
)
def test_a_machine_that_is_no_node_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, now: str, sentence: str
) -> None:
    """Ray 2.60 ends the process, as seen from another network namespace."""
    log = tmp_path / "logs" / "ray.log"
    log.parent.mkdir()
    log.write_text(before)

    def end(*_: object) -> None:
        with log.open("a") as file:
            file.write(now)
        raise EngineError("see the log")

    monkeypatch.setattr(apart, "Apart", end)
    settings = WorkerSettings(tmp_path, ("auto",), 1, lambda _: None, options={"address": "h:1"})
    with pytest.raises(EngineError, match=sentence):
        create(settings)
