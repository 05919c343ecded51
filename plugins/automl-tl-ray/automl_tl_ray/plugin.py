"""The hooks of the Ray plugin. Importing this module does not import Ray."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from automl_tl.errors import EngineError, UsageError
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import EngineSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from automl_tl.protocols import Engine
    from automl_tl.specs import WorkerSettings

_NO_NODE = b"raylet_ipc_client.cc"
"""What the log has when Ray did not find its node here; it ends the process then."""


def check(options: Mapping[str, Any]) -> None:
    """Check the options, and that somebody answers at the address."""
    from automl_tl_ray.options import check_reachable, checked

    address = checked(options).address
    if find_spec("ray") is None:
        raise EngineError("The engine ray needs the Python package ray: `pip install ray`.")
    check_reachable(address)


def create(settings: WorkerSettings) -> Engine:
    """Return the engine of one search, which a process of its own runs.

    Ray prints to standard output, catches signals, and waits for a cluster that is not there.
    """
    from automl_tl.engines.apart import Apart

    if settings.devices[0] == "cpu" and settings.options.get("gpus_per_trial"):
        raise UsageError("--gpus-per-trial is for trials on GPUs: leave it or --device cpu out.")
    log = settings.directory / "logs" / "ray.log"
    before = log.stat().st_size if log.is_file() else 0
    try:
        return Apart(settings, "automl_tl_ray.driver", "ray")
    except EngineError:
        if _NO_NODE in log.read_bytes()[before:]:
            address = settings.options.get("address")
            raise EngineError(
                f"This machine is no node of the Ray cluster at {address}: make it one with "
                f"`ray start --address={address}`, or search from one that is."
            ) from None
        raise


@hookimpl
def automl_tl_engines() -> list[EngineSpec]:
    """Announce the engine ``ray``."""
    options = ("address", "gpus_per_trial")
    return [EngineSpec("ray", create, options, check, remote=True)]
