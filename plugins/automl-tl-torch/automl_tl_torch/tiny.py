"""``torch/tiny``, the backbone that ships: small, quick on a CPU, pretrained without photographs.

``automl_tl.tiny`` holds the weights and says how they came to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl import tiny
from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.specs import Backbone
    from automl_tl_torch.tiny_network import Tiny


def tiny_backbone() -> Backbone:
    """Return the description of ``torch/tiny``. Imports no framework."""
    return tiny.backbone("torch", build)


def build(weights: Path | None = None) -> Tiny:
    """Build the network with its classifier of synthetic classes, in evaluation mode.

    Args:
        weights: A safetensors file; None for random weights, drawn from torch's global generator,
            which is left alone otherwise.

    Raises:
        WeightsError: The file is missing, not safetensors, or of another network.
    """
    import torch

    from automl_tl_torch.tiny_network import Tiny

    if weights is None:
        return Tiny().eval()
    with torch.random.fork_rng(devices=[]):
        network = Tiny()
    _fill(network, weights)
    return network.eval()


def _fill(network: Tiny, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    other = "use the file that ships with automl-tl, or --weights torch/tiny=none"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"torch/tiny: expected a safetensors file at {path}, but it cannot be read"
            f" ({error}): {other}."
        ) from error
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(
            f"torch/tiny: {path} holds the weights of another network ({reason}): {other}."
        ) from error
