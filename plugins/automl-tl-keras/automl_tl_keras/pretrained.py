"""A backbone with its original classifier, as a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

from automl_tl.errors import AutoMLError, PluginError, WeightsError
from automl_tl_keras import whole
from automl_tl_keras.model import KerasModel
from automl_tl_keras.network import normalize

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.specs import Backbone


def open_classifier(backbone: Backbone, path: Path, device: str = "cpu") -> KerasModel:
    """Build a backbone with its original classifier; see ``Backend.classifier``.

    Args:
        backbone: The backbone.
        path: A weights file.
        device: Where it runs.

    Raises:
        WeightsError: When the weights cannot be loaded, or there is no such classifier.
        PluginError: When the loader fails otherwise.
    """
    try:
        network = (backbone.load_classifier or backbone.load)(path)
    except AutoMLError:
        raise
    except Exception as error:
        raise PluginError(
            f"{backbone.key}: its loader fails with {type(error).__name__}: {error}; report it to "
            "the backbone's author."
        ) from error
    if isinstance(network, Mapping):
        raise WeightsError(
            f"{backbone.key}: expected a network with its original classifier, got stages, which "
            "have none; train one on your images with `automl-tl search`."
        )
    side = backbone.input_size
    pixels = keras.Input((side, side, 3), dtype="float32", name="pixels")
    program = keras.Model(pixels, network(normalize(pixels, backbone.preprocess)))
    classes = int(program.output_shape[-1])
    return KerasModel(whole.compiled(program), side, classes, set(), device)
