"""``keras/tiny``, the backbone that ships: small, quick on a CPU, pretrained without photographs.

``automl_tl.tiny`` holds the weights and says how they came to be; they are the ones of
``torch/tiny``, and so are the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl import tiny
from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from automl_tl.specs import Backbone


def tiny_backbone() -> Backbone:
    """Return the description of ``keras/tiny``. Imports no framework."""
    return tiny.backbone("keras", build, build_classifier)


def build(weights: Path | None = None, image_size: int | None = None) -> keras.Model:
    """Build the network without its classifier.

    Args:
        weights: A safetensors file; None for random weights from Keras' global seed.
        image_size: Side of the images, None for any.

    Raises:
        WeightsError: The file is missing, not safetensors, or of another network.
    """
    from automl_tl_keras.tiny_network import features

    return _filled(features(image_size), weights)


def build_classifier(weights: Path | None = None) -> keras.Model:
    """Build the network with its classifier of synthetic classes; like ``build``."""
    from automl_tl_keras.tiny_network import classifier

    return _filled(classifier(), weights)


def _filled(network: keras.Model, path: Path | None) -> keras.Model:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from automl_tl_keras.tiny_network import fill

    if path is None:
        return network
    other = "use the file that ships with automl-tl, or --weights keras/tiny=none"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"keras/tiny: expected a safetensors file at {path}, but it cannot be read"
            f" ({error}): {other}."
        ) from error
    try:
        fill(network, tensors)
    except (KeyError, ValueError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else error
        raise WeightsError(
            f"keras/tiny: {path} holds the weights of another network ({reason}): {other}."
        ) from error
    return network
