"""What comes with the core, through the same hooks as everybody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import DatasetSpec, EngineSpec

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.data.index import DataIndex
    from automl_tl.protocols import Engine
    from automl_tl.specs import WorkerSettings


def _digits(cache_directory: Path) -> DataIndex:
    from automl_tl.data import digits

    return digits.load(cache_directory)


def _local(settings: WorkerSettings) -> Engine:
    from automl_tl.engines.local import LocalEngine

    return LocalEngine(settings)


@hookimpl
def automl_tl_datasets() -> list[DatasetSpec]:
    """Provide ``digits``."""
    return [
        DatasetSpec(
            "digits",
            load=_digits,
            description="1,797 handwritten digits, 8 x 8 pixels (scikit-learn, UCI)",
            licence="CC-BY-4.0",
        )
    ]


@hookimpl
def automl_tl_engines() -> list[EngineSpec]:
    """Provide ``local``."""
    return [EngineSpec("local", create=_local)]
