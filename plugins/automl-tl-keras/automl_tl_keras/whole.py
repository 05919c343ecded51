"""Whole models, from pixels to logits, and their weights by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from automl_tl.errors import AutoMLError, ExportError
from automl_tl.types import NetworkSpec
from automl_tl_keras import head as heads
from automl_tl_keras import network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.specs import Backbone


@dataclass(frozen=True)
class Whole:
    """A whole model of standard Keras layers.

    Attributes:
        program: Input ``pixels``, uint8 RGB ``(N, S, S, 3)``; output ``logits``, float32
            ``(N, classes)``.
        tensors: Its weights by the names that they have in model files: ``backbone.*`` as in
            ``Network.tensors``, ``head.dense_0/kernel``, ``head.dense_0/bias``, ...
        image_size: Side of the square input in pixels.
        classes: Width of the output.
    """

    program: keras.Model
    tensors: Mapping[str, keras.Variable]
    image_size: int
    classes: int

    def fill(self, arrays: Mapping[str, Any], name: str) -> None:
        """Set all weights.

        Args:
            arrays: By name; read one after the other.
            name: How to call their file in an error.

        Raises:
            ExportError: When they are not those of this model.
        """
        missing = self.tensors.keys() - arrays.keys()
        spare = arrays.keys() - self.tensors.keys()
        if missing or spare:
            one = min(missing or spare)
            what = "is missing" if missing else "is none of its tensors"
            raise ExportError(f"{_foreign(name)} ({one} {what}); export the model again.")
        for key, variable in self.tensors.items():
            value = np.asarray(arrays[key])
            if value.shape != tuple(variable.shape):
                raise ExportError(
                    f"{_foreign(name)} ({key} has shape {value.shape}, not "
                    f"{tuple(variable.shape)}); export the model again."
                )
            variable.assign(value)
        settle(self.program)

    def divide_logits(self, divisor: float) -> None:
        """Divide all logits by a number, in kernel and bias of the last layer."""
        last = sum(name.startswith("head.") for name in self.tensors) // 2 - 1
        for part in ("kernel", "bias"):
            variable = self.tensors[f"head.dense_{last}/{part}"]
            variable.assign(keras.ops.divide(variable, divisor))


def build(facts: ModelFacts, backbones: Callable[[str], Backbone], name: str, room: int) -> Whole:
    """Build the model that a file tells of, with weights that mean nothing yet.

    Args:
        facts: Of the model.
        backbones: Returns the backbone of a key; raises an ``AutoMLError`` for an unknown one.
        name: How to call the file in an error.
        room: Bytes of the file, which holds no head of more parameters.

    Raises:
        ExportError: When the network cannot be built.
    """
    spec = NetworkSpec(facts.backbone, facts.image_size, None, "random:0")
    try:
        built = network.build(spec, backbones(facts.backbone))
        last = built.info.cuts[-1]
        wanted = sum(heads.sizes(facts.head, last.shape).values())
        if wanted > room:
            raise ExportError(f"its head would have {wanted:,} parameters, in {room:,} bytes")
        layers = heads.layers(facts.head, last.shape)
        side = facts.image_size
        pixels = keras.Input((side, side, 3), dtype="uint8", name="pixels")
        x = built.segment(0, last.index)(pixels)
        for layer in layers:
            x = layer(x)
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
        program = keras.Model(pixels, logits, name="classifier")
    except (AutoMLError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(
            f"{name}: its network {facts.backbone} cannot be rebuilt ({error})"
        ) from error
    tensors = {f"backbone.{key}": variable for key, variable in built.tensors().items()}
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    for index, layer in enumerate(dense):
        tensors[f"head.dense_{index}/kernel"] = layer.kernel
        tensors[f"head.dense_{index}/bias"] = layer.bias
    return Whole(program, tensors, facts.image_size, facts.head.classes)


def compiled(model: keras.Model) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function from uint8 pixels ``(n, S, S, 3)`` to what a model gives for them.

    On TensorFlow it is compiled once, for every n.
    """
    if keras.config.backend() != "tensorflow":
        classify: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = model.predict_on_batch
        return classify
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
    function = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)
    concrete = function.get_concrete_function()
    return lambda pixels: concrete(tf.constant(pixels)).numpy()


def settle(model: keras.Model) -> None:
    """Let layers that keep constants made of their weights, as Normalization does, renew them."""
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _foreign(name: str) -> str:
    return f"{name}: its tensors are not those of the network that it names"
