"""A network's layers and cut points in figures: parameters, shapes, multiply-adds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras

from automl_tl.types import Cut, Layer
from automl_tl_keras.graph import record

if TYPE_CHECKING:
    from automl_tl_keras.graph import Call, LayerGraph


def describe(graph: LayerGraph, image_size: int) -> tuple[tuple[Layer, ...], tuple[Cut, ...]]:
    """List layers and cut points, with shapes and multiply-adds."""
    layers = tuple(
        Layer(
            layer.name,
            type(layer).__name__,
            sum(math.prod(variables[name].shape) for name in trainable),
        )
        for layer, variables, trainable in zip(
            graph.layers, graph.variables, graph.trainable, strict=True
        )
    )
    flops = [0] * len(layers)
    for call in graph.calls:
        flops[call.position] += multiply_adds(call)
    cuts = [Cut(0, (image_size, image_size, 3), 0)]
    for index, tensor in graph.crossings.items():
        shape = tuple(tensor.shape[1:])
        if index and tensor.shape[0] is None and None not in shape:
            cuts.append(Cut(index, shape, sum(flops[:index])))
    return layers, tuple(cuts)


def multiply_adds(call: Call) -> int:
    """Return the multiply-adds of a call for one image.

    A kernel is used once at every position of the result, whether it is that of a convolution
    (depthwise and grouped ones too) or of a dense layer. A layer without a kernel counts one for
    every value of its result.
    """
    operation, (result, *_) = call.operation, call.outputs
    if isinstance(operation, keras.Model) and (inner := _inside(operation, call.inputs[0])):
        return sum(map(multiply_adds, inner))
    weights = operation.weights if isinstance(operation, keras.layers.Layer) else []
    kernels = sum(int(math.prod(v.shape)) for v in weights if len(v.shape) > 1)
    if kernels:
        return kernels * _size(result.shape[1:-1])
    return _size(result.shape[1:])


def _inside(model: keras.Model, tensor: Any) -> list[Call]:
    """Return the calls inside a nested model, none when it is not functional."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    if not hasattr(model, "operations"):
        return []
    return record(model, tuple(tensor.shape[1:]))[1]


def _size(shape: tuple[int | None, ...]) -> int:
    return math.prod(side or 1 for side in shape)
