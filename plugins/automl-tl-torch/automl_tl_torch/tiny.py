"""``torch/tiny``, the backbone that ships: small, quick on a CPU, pretrained without photographs.

``tools/pretrain_tiny.py`` wrote the weights beside this module, from images that
``tools/synthetic.py`` draws. Convolutions and the classifier are stored as float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.errors import WeightsError
from automl_tl.specs import Backbone, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from automl_tl_torch.tiny_network import Tiny

INPUT_SIZE = 32
MIN_SIZE = 8
PARAMETERS = 463_716
PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def weights_path() -> Path:
    """Return where the shipped weights lie."""
    return Path(__file__).with_name("tiny.safetensors")


def tiny_backbone() -> Backbone:
    """Return the description of ``torch/tiny``. Imports no framework."""
    return Backbone(
        name="tiny",
        backend="torch",
        load=build,
        input_size=INPUT_SIZE,
        parameters=PARAMETERS,
        min_size=MIN_SIZE,
        preprocess=PREPROCESS,
        pretrained=PretrainedWeights("synthetic", path=weights_path, licence="Apache-2.0"),
        licence="Apache-2.0",
        recommended=True,
        small_images=True,
        facts={"gflops": 0.017, "synthetic_accuracy": 0.872},
    )


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

    other = "use the file that ships with automl-tl-torch, or --weights torch/tiny=none"
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
