"""A backbone with its original classifier, as a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from automl_tl.errors import WeightsError
from automl_tl_torch.model import TorchModel
from automl_tl_torch.network import Normalize, load

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from automl_tl.specs import Backbone


def open_classifier(backbone: Backbone, path: Path, device: torch.device) -> TorchModel:
    """Build a backbone with its original classifier; see ``Backend.classifier``.

    Args:
        backbone: The backbone.
        path: A weights file.
        device: Where it runs.

    Raises:
        WeightsError: When the weights cannot be loaded, or there is no such classifier.
        PluginError: When the loader fails otherwise.
    """
    network = load(backbone.load_classifier or backbone.load, backbone.key, path, seed=0)
    if isinstance(network, Mapping):
        raise WeightsError(
            f"{backbone.key}: expected a network with its original classifier, got stages, which "
            "have none; train one on your images with `automl-tl search`."
        )
    program = nn.Sequential(Normalize(backbone.preprocess), network)
    program.eval().requires_grad_(False).to(device)
    return TorchModel(program, backbone.input_size, device, set())
