"""The hooks of the Keras plugin. Importing this module imports no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import BackendSpec

if TYPE_CHECKING:
    from automl_tl.specs import Backbone
    from automl_tl_keras.backend import KerasBackend

FORMATS = {
    "onnx": ".onnx",
    "keras": ".keras",
    "savedmodel": ".savedmodel",
    "litert": ".tflite",
    "safetensors": ".safetensors",
}
# TensorFlow would log every start, and take all of a GPU's memory at once.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def load_backend() -> KerasBackend:
    """Import Keras and return the backend."""
    from automl_tl_keras.backend import KerasBackend

    return KerasBackend()


@hookimpl
def automl_tl_backends() -> list[BackendSpec]:
    """Keras, on whichever framework it may run here."""
    from automl_tl_keras.frameworks import candidates, distribution

    return [
        BackendSpec(
            "keras",
            load_backend,
            FORMATS,
            packages=("keras", *map(distribution, candidates())),
            environment=ENVIRONMENT,
        )
    ]


@hookimpl
def automl_tl_backbones() -> list[Backbone]:
    """The backbone that ships with automl-tl, and the models of ``keras.applications``."""
    from automl_tl_keras.catalog import applications
    from automl_tl_keras.tiny import tiny_backbone

    return [tiny_backbone(), *applications()]
