"""The hooks of the PyTorch plugin. Importing this module imports no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import BackendSpec

if TYPE_CHECKING:
    from automl_tl.specs import Backbone, DatasetSpec
    from automl_tl_torch.backend import TorchBackend

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def load_backend() -> TorchBackend:
    """Import PyTorch and return the backend."""
    from automl_tl_torch.backend import TorchBackend

    return TorchBackend()


@hookimpl
def automl_tl_backends() -> list[BackendSpec]:
    """PyTorch."""
    return [BackendSpec("torch", load_backend, FORMATS, packages=("torch", "torchvision"))]


@hookimpl
def automl_tl_backbones() -> list[Backbone]:
    """The backbone that ships with the plugin, and torchvision's classification models."""
    from automl_tl_torch.catalog import torchvision_backbones
    from automl_tl_torch.tiny import tiny_backbone

    return [tiny_backbone(), *torchvision_backbones()]


@hookimpl
def automl_tl_datasets() -> list[DatasetSpec]:
    """The image classification sets of torchvision."""
    from automl_tl_torch.datasets import torchvision_datasets

    return torchvision_datasets()
