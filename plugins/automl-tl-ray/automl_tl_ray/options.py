"""What the engine takes: ``--address`` and ``--gpus-per-trial``."""

from __future__ import annotations

import os
import socket
import sys
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was given, and what counts where nothing was."""

    address: str
    gpus_per_trial: float | None


def checked(options: Mapping[str, Any]) -> Options:
    """Return the options; without an address, that of ``RAY_ADDRESS``, or else ``local``.

    Ray would also take a cluster that it happens to find on this machine, be it somebody else's.

    Raises:
        UsageError: When one cannot be right.
    """
    address, gpus = options.get("address"), options.get("gpus_per_trial")
    if address is None:
        address = os.environ.get("RAY_ADDRESS") or "local"
    _host_and_port(address)
    if gpus is None:
        return Options(address, None)
    number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
    if not number or not 0 < gpus <= sys.float_info.max:
        raise UsageError(
            f"Expected --gpus-per-trial above 0 and finite, such as 0.25 or 1, got {gpus}."
        )
    if gpus > 1 and gpus != int(gpus):
        raise UsageError(f"Expected --gpus-per-trial up to 1 or whole, as Ray does, got {gpus:g}.")
    return Options(address, float(gpus))


def check_reachable(address: str) -> None:
    """Check that somebody listens at an address; Ray would try for two minutes.

    Raises:
        EngineError: When nobody does.
    """
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise EngineError(
            f"No Ray cluster answers at {address} ({reason}): start one with `ray start --head`, "
            "and give the address that this prints with --address."
        ) from None


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """Return where to connect to; None for ``auto`` and ``local``, which Ray looks up itself."""
    if address in ("auto", "local"):
        return None
    try:
        parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
        if parts.scheme in ("", "ray") and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except (TypeError, ValueError, AttributeError):
        pass
    raise UsageError(
        "Expected --address HOST:PORT of a Ray cluster, ray://HOST:PORT of a Ray client server or "
        f"auto, got {address!r}."
    )
