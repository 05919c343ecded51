"""The graph of a functional network: what runs in which order, and where one tensor flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from automl_tl.errors import PluginError
from automl_tl.layers import check_stages


@dataclass(frozen=True)
class Call:
    """One use of a layer, or of an operation between layers.

    Attributes:
        operation: What is called.
        args: Its arguments, symbolic tensors among them.
        kwargs: Its keyword arguments, likewise.
        inputs: The tensors among the arguments.
        outputs: Its results.
        position: Index of the layer that it belongs to. The first call of a layer belongs to that
            layer; any other belongs to the last layer whose result it depends on.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    position: int


@dataclass(frozen=True)
class LayerGraph:
    """The graph of a backbone at one image size.

    Attributes:
        model: From normalised images ``(n, s, s, 3)`` to the output of the last layer.
        layers: ``model.layers``.
        calls: In an order in which they can run.
        variables: For each layer, its weights that no earlier layer uses, by unique names.
        trainable: For each layer, the names of those that can be trained.
        crossings: For each index past which one tensor flows, that tensor.
    """

    model: keras.Model
    layers: tuple[keras.layers.Layer, ...]
    calls: tuple[Call, ...]
    variables: tuple[dict[str, keras.Variable], ...]
    trainable: tuple[tuple[str, ...], ...]
    crossings: dict[int, Any]


def trace(network: Any, image_size: int, key: str) -> LayerGraph:
    """Trace a network at one image size; its layers become part of the result.

    Args:
        network: Returned by a ``Backbone``'s loader: a functional model, or stages by name.
        image_size: Side of the square images in pixels.
        key: Of the backbone, for messages.

    Raises:
        PluginError: When the network is not a functional Keras model with one input and one
            output, does not run at this size, or its stages are none.
    """
    shape = (image_size, image_size, 3)
    stages = isinstance(network, Mapping)
    model = _chain(network, shape, key) if stages else _functional(network, key)
    try:
        twin, recorded = record(model, shape)
    except Exception as error:
        raise PluginError(
            f"{key}: does not run on images of {image_size} x {image_size} pixels "
            f"({_first_line(error)}); choose another image size."
        ) from error
    if tuple(model.inputs[0].shape[1:]) != shape:
        model = twin
    layers = tuple(model.layers)
    calls = _place(recorded, twin, layers, key)
    variables, trainable = _owned(layers)
    crossings = _crossings(twin, calls, len(layers))
    return LayerGraph(model, layers, calls, variables, trainable, crossings)


def extract(graph: LayerGraph, start: int, target: Any, entry: Any, name: str) -> keras.Model:
    """Make a model of the calls between a cut and a tensor, sharing the layers.

    Args:
        graph: Where the calls are.
        start: A cut.
        target: A tensor of the graph that depends on the one at ``start`` alone.
        entry: The model's input and what stands for the tensor at ``start``: ``(input, tensor)``.
        name: Of the model.
    """
    source, first = entry
    values = {id(graph.crossings[start]): first}

    def translate(value: Any) -> Any:
        return values[id(value)] if isinstance(value, keras.KerasTensor) else value

    for call in _needed(graph, start, target):
        args, kwargs = keras.tree.map_structure(translate, (call.args, dict(call.kwargs)))
        results = keras.tree.flatten(call.operation(*args, **kwargs))
        values.update(
            (id(tensor), result) for tensor, result in zip(call.outputs, results, strict=True)
        )
    return keras.Model(source, values[id(target)], name=name)


def outputs(graph: LayerGraph, start: int, name: str) -> tuple[Any, ...]:
    """Return what a layer above a cut returns at its first use, nothing when there is none."""
    if start not in graph.crossings:
        return ()
    if start == 0 and graph.layers[0].name == name:
        return (graph.crossings[0],)
    return next(
        (
            call.outputs
            for call in graph.calls
            if call.operation.name == name and call.position >= start
        ),
        (),
    )


def record(model: keras.Model, shape: tuple[int, ...]) -> tuple[keras.Model, list[Call]]:
    """Call a model's layers on a new input; returns the model that results, and the calls."""
    recorded = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        result = operation(*args, **kwargs)
        inputs = tuple(
            value
            for value in keras.tree.flatten((args, kwargs))
            if isinstance(value, keras.KerasTensor)
        )
        outputs = tuple(keras.tree.flatten(result))
        recorded.append(Call(operation, args, kwargs, inputs, outputs, -1))
        return result

    old = next(layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer))
    new = keras.Input(shape, dtype=old.dtype, name=old.name)
    twin = keras.models.clone_model(
        model,
        input_tensors=keras.tree.map_structure(lambda _: new, model.input),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return twin, recorded


def _chain(stages: Mapping[str, Any], shape: tuple[int, int, int], key: str) -> keras.Model:
    """Make a model of stages that are run one after the other."""
    check_stages(stages, keras.Layer, key)
    images = value = keras.Input(shape, name="input_layer")
    for name, stage in stages.items():
        stage.name = name
        try:
            value = stage(value)
        except Exception as error:
            raise PluginError(
                f"{key}: does not run on images of {shape[0]} x {shape[1]} pixels, from stage "
                f"{name} on ({_first_line(error)}); choose another image size."
            ) from error
        if not isinstance(value, keras.KerasTensor) or value.shape[:1] != (None,):
            got = value.shape if isinstance(value, keras.KerasTensor) else type(value).__name__
            raise PluginError(
                f"{key}: expected stage {name} to return one tensor with a row for each image, "
                f"got {got}; report it to the backbone's author."
            )
    return keras.Model(images, value)


def _functional(network: Any, key: str) -> keras.Model:
    if isinstance(network, keras.Sequential) and network.built:
        network = keras.Model(network.inputs, network.outputs, name=network.name)
    if not isinstance(network, keras.Model) or not hasattr(network, "operations"):
        raise PluginError(
            f"{key}: expected its loader to return a functional keras.Model, got "
            f"{type(network).__name__}; report it to the backbone's author."
        )
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise PluginError(
            f"{key}: expected a network with one input and one output, got {len(network.inputs)} "
            f"and {len(network.outputs)}; report it to the backbone's author."
        )
    return network


def _place(
    recorded: list[Call], twin: keras.Model, layers: tuple[keras.layers.Layer, ...], key: str
) -> tuple[Call, ...]:
    """Give every call its position."""
    index = {id(layer): position for position, layer in enumerate(layers)}
    made = {id(twin.inputs[0]): 0}
    seen: set[int] = set()
    placed = []
    for call in recorded:
        latest = max((made[id(tensor)] for tensor in call.inputs), default=0)
        identity = id(call.operation)
        position = index[identity] if identity in index and identity not in seen else latest
        if position < latest:
            raise PluginError(
                f"{key}: expected layers in execution order, but {call.operation.name} comes "
                "before a layer that it depends on; report it to the backbone's author."
            )
        seen.add(identity)
        made.update((id(tensor), position) for tensor in call.outputs)
        placed.append(
            Call(call.operation, call.args, call.kwargs, call.inputs, call.outputs, position)
        )
    return tuple(placed)


def _crossings(twin: keras.Model, calls: tuple[Call, ...], count: int) -> dict[int, Any]:
    tensors = {id(twin.inputs[0]): twin.inputs[0]}
    made = {id(twin.inputs[0]): 0}
    last_use: dict[int, int] = {}
    for call in calls:
        for tensor in call.inputs:
            last_use[id(tensor)] = max(last_use.get(id(tensor), 0), call.position)
        for tensor in call.outputs:
            tensors[id(tensor)] = tensor
            made[id(tensor)] = call.position
    last_use[id(twin.outputs[0])] = count
    crossings = {0: twin.inputs[0]}
    for cut in range(1, count + 1):
        alive = [key for key, last in last_use.items() if made[key] < cut <= last]
        if len(alive) == 1:
            crossings[cut] = tensors[alive[0]]
    return crossings


def _needed(graph: LayerGraph, start: int, target: Any) -> list[Call]:
    """Return the calls that lead from the tensor at a cut to a target, in order."""
    wanted = {id(target)} - {id(graph.crossings[start])}
    needed = []
    for call in reversed(graph.calls):
        if any(id(tensor) in wanted for tensor in call.outputs):
            needed.append(call)
            wanted.update(id(tensor) for tensor in call.inputs)
            wanted.discard(id(graph.crossings[start]))
    return needed[::-1]


def _owned(
    layers: tuple[keras.layers.Layer, ...],
) -> tuple[tuple[dict[str, keras.Variable], ...], tuple[tuple[str, ...], ...]]:
    seen: set[int] = set()
    names: set[str] = set()
    variables, trainable = [], []
    for layer in layers:
        layer.trainable = True
        mine = {}
        for variable in layer.weights:
            if id(variable) not in seen:
                seen.add(id(variable))
                name = _unique(layer.name, variable.path, names)
                mine[name] = variable
        variables.append(mine)
        trainable.append(tuple(name for name, variable in mine.items() if variable.trainable))
    return tuple(variables), tuple(trainable)


def _unique(layer: str, path: str, names: set[str]) -> str:
    """Return ``LAYER/.../VARIABLE``, unlike all ``names``, and add it to them."""
    base = path if path.startswith(f"{layer}/") else f"{layer}/{path}"
    name, count = base, 0
    while name in names:
        count += 1
        name = f"{base}_{count}"
    names.add(name)
    return name


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
