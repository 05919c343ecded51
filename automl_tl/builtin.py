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


def _flower_photos(cache_directory: Path) -> DataIndex:
    from automl_tl.data import remote

    return remote.load(remote.FLOWER_PHOTOS, cache_directory)


def _cats_and_dogs(cache_directory: Path) -> DataIndex:
    from automl_tl.data import remote

    return remote.load(remote.CATS_AND_DOGS, cache_directory)


def _local(settings: WorkerSettings) -> Engine:
    from automl_tl.engines.local import LocalEngine

    return LocalEngine(settings)


@hookimpl
def automl_tl_datasets() -> list[DatasetSpec]:
    """Provide ``digits``, which needs no network, and the pictures of TensorFlow's tutorials."""
    return [
        DatasetSpec(
            "digits",
            load=_digits,
            description="1,797 handwritten digits, 8 x 8 pixels (scikit-learn, UCI)",
            licence="CC-BY-4.0",
        ),
        DatasetSpec(
            "flower_photos",
            load=_flower_photos,
            description="3,670 photographs of five flowers (TensorFlow)",
            licence="CC-BY-2.0",
            download_bytes=228_813_984,
        ),
        DatasetSpec(
            "cats_and_dogs_filtered",
            load=_cats_and_dogs,
            description="2,000 photographs to train on, 1,000 to validate (Kaggle, TensorFlow)",
            download_bytes=68_606_236,
        ),
    ]


@hookimpl
def automl_tl_engines() -> list[EngineSpec]:
    """Provide ``local``."""
    return [EngineSpec("local", create=_local)]
