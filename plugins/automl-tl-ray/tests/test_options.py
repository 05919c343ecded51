"""What the engine takes and refuses."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from automl_tl.errors import EngineError, UsageError
from automl_tl_ray.options import Options, check_reachable, checked


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://head:10001", "auto", "[::1]:6379"])
def test_addresses_as_ray_takes_them(address: str) -> None:
    options = {"address": address, "gpus_per_trial": 0.25}
    assert checked(options) == Options(address, 0.25)


@pytest.mark.parametrize("address", ["head", "http://head:1", "head:port", "head:99999", "", 6379])
def test_other_addresses_are_refused(address: Any) -> None:
    with pytest.raises(UsageError, match="Expected --address HOST:PORT"):
        checked({"address": address})


@pytest.mark.parametrize("gpus", [0, -1, 1.5, float("nan"), "1", True])
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
