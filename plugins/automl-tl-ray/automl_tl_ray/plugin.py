"""The hooks of the Ray plugin. Importing this module does not import Ray."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import EngineSpec

if TYPE_CHECKING:
    from automl_tl.protocols import Engine
    from automl_tl.specs import WorkerSettings


def create(settings: WorkerSettings) -> Engine:
    """Return the engine of one search, which a process of its own runs.

    Ray prints to standard output, catches signals, and waits for a cluster that is not there.
    """
    from automl_tl.engines.apart import Apart
    from automl_tl.errors import EngineError
    from automl_tl_ray.options import checked

    checked(settings.options)
    if find_spec("ray") is None:
        raise EngineError("The engine ray needs the Python package ray: `pip install ray`.")
    return Apart(settings, "automl_tl_ray.driver", "ray")


@hookimpl
def automl_tl_engines() -> list[EngineSpec]:
    """Announce the engine ``ray``."""
    return [EngineSpec("ray", create, options=("address", "gpus_per_trial"), remote=True)]
