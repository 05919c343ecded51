"""Weights files: where Keras keeps them, and filling a network from one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import keras

    from automl_tl_keras.weights_file import Layers

# VGG's classifier has three layers with weights, more than any other.
CLASSIFIER_LAYERS = 3


def weights_path(file: str) -> Path:
    """Return where Keras keeps a weights file, whether it is there or not.

    Follows ``KERAS_HOME`` as Keras does, without importing it.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return Path(home).expanduser() / "models" / file


def load_into(network: keras.Model, path: Path, key: str) -> None:
    """Load a weights file into a network.

    The file is an ``.h5`` of ``keras.applications`` or ``save_weights``, a whole model as ``.h5``
    or ``.keras``, or safetensors with the names of ``Network.tensors``, perhaps after
    ``backbone.``. It may hold a classifier that the network lacks. No code in it is run.

    Args:
        network: Changed in place, but only when all tensors fit.
        path: The file; told apart by its content, not by its suffix.
        key: Of the backbone, for messages.

    Raises:
        WeightsError: When the file is absent, is no weights file, or belongs to another network.
    """
    from automl_tl_keras import weights_file

    try:
        with weights_file.opened(path, network) as stored:
            pairs = _match(network, stored)
            # All are read before any is written.
            values = [[array[()] for array in arrays] for _, _, arrays in pairs]
    except weights_file.Foreign as error:
        raise WeightsError(
            f"{key}: expected weights of this network, but {path} belongs to another one: {error}; "
            f"give the right file, or use --weights {key}=none."
        ) from error
    except weights_file.Damaged as error:
        raise WeightsError(
            f"{key}: {path} is not a weights file, or is damaged ({_reason(error)}); expected "
            "Keras' .h5, .weights.h5 or .keras, or safetensors."
        ) from error
    except OSError as error:
        raise WeightsError(
            f"{key}: the weights file {path} cannot be read ({error.strerror or error}); check "
            f"the path, or use --weights {key}=none."
        ) from error
    for (layer, variables, _), arrays in zip(pairs, values, strict=True):
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array.astype(variable.dtype))
        _settle(layer)


def _match(
    network: keras.Model, stored: Layers
) -> list[tuple[keras.Layer, list[keras.Variable], list[Any]]]:
    """Pair every layer that has weights with its arrays, in order; raises ``Foreign``."""
    from automl_tl_keras.weights_file import Foreign, legacy_weights

    wanted = [(layer, legacy_weights(layer)) for layer in network.layers]
    wanted = [(layer, variables) for layer, variables in wanted if variables]
    names = {_plain(layer.name) for layer, _ in wanted}
    by_name = {_plain(name): arrays for name, arrays in stored[: len(wanted)]}
    if names == by_name.keys():
        ordered = [(layer.name, by_name[_plain(layer.name)]) for layer, _ in wanted]
        stored = [*ordered, *stored[len(wanted) :]]
    pairs = []
    for (layer, variables), (name, arrays) in zip(wanted, stored, strict=False):
        shapes, expected = [_shape(a) for a in arrays], [tuple(v.shape) for v in variables]
        if shapes != expected:
            raise Foreign(
                f"its layer {name} has tensors of shapes {_join(shapes)}, where {layer.name} has "
                f"{_join(expected)}"
            )
        pairs.append((layer, variables, arrays))
    if len(stored) < len(wanted):
        raise Foreign(
            f"it ends after {len(stored)} of {len(wanted)} layers with weights "
            f"({wanted[len(stored)][0].name} is missing)"
        )
    spare = stored[len(wanted) :]
    if len(spare) > CLASSIFIER_LAYERS or not all(_classifies(arrays) for _, arrays in spare):
        raise Foreign(f"it has {len(spare)} more layers with weights (first {spare[0][0]})")
    return pairs


def _classifies(arrays: list[Any]) -> bool:
    """Whether a layer may be part of a classifier: dense, or a convolution of one pixel."""
    kernel = _shape(arrays[0])
    return len(kernel) in (1, 2) or kernel[:2] == (1, 1)


def _settle(layer: keras.Layer) -> None:
    """Let a layer that keeps constants made of its variables, as Normalization does, renew them."""
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        _settle(inner)


def _plain(name: str) -> str:
    """Return a layer's name without what versions of Keras spell differently."""
    return name.replace("/", "_").lower()


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)


def _join(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes)


def _reason(error: BaseException) -> str:
    reason = str(error).strip() or type(error).__name__
    return reason.splitlines()[0][:200].rstrip(".")
