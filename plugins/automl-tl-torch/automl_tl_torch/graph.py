"""A network's layers and cut points, from its traced graph."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from automl_tl.errors import PluginError
from automl_tl.types import Cut, Layer
from automl_tl_torch.classifier import find_output
from automl_tl_torch.vision import NodePathTracer, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BATCH = 5
_IN_PLACE_OPERATORS: tuple[Any, ...] = (
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
)


@dataclass(frozen=True)
class LayerGraph:
    """The traced graph of a backbone without its classifier.

    Attributes:
        module: All modules and parameters in use, and the graph itself.
        pixels: The graph's input.
        layers: Its operations in execution order.
        names: Their names, as torchvision's feature extraction gives them.
        output: The operation whose result leaves the backbone.
        parameters: For each layer, names in ``module`` of the parameters that it is first to use.
        crossings: For each index past which one value flows, that value.
    """

    module: fx.GraphModule
    pixels: fx.Node
    layers: tuple[fx.Node, ...]
    names: tuple[str, ...]
    output: fx.Node
    parameters: tuple[tuple[str, ...], ...]
    crossings: dict[int, fx.Node]


def trace(network: nn.Module, key: str) -> LayerGraph:
    """Trace a network in evaluation mode and drop its classifier.

    ``automl_tl_torch.classifier`` says where the backbone ends. Leaf modules are those of
    ``torch.nn`` and of ``torchvision.ops``, as in torchvision's feature extraction. Functions
    called with ``training=self.training`` are recorded as in evaluation.

    Args:
        network: Returned by a ``Backbone``'s loader; its modules become part of the result.
        key: Of the backbone, for messages.

    Raises:
        PluginError: When the network cannot be traced or its classifier cannot be found.
    """
    leaves = [cls for _, cls in inspect.getmembers(torchvision.ops, _is_module_class)]
    tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops), leaf_modules=leaves)
    try:
        graph = tracer.trace(network.eval())
    except Exception as error:
        raise PluginError(
            f"{key}: expected a network whose graph torch.fx can trace, but tracing fails with "
            f"{type(error).__name__} ({_first_line(error)}); report it to the backbone's author."
        ) from error
    names: dict[fx.Node, str] = dict(tracer.node_to_qualname)
    output = find_output(network, graph, names, key)
    _keep_only(graph, output)
    module = fx.GraphModule(network, graph).eval()
    layers = tuple(node for node in graph.nodes if node.op.startswith("call_"))
    pixels = next(node for node in graph.nodes if node.op == "placeholder")
    return LayerGraph(
        module=module,
        pixels=pixels,
        layers=layers,
        names=tuple(names[node] for node in layers),
        output=output,
        parameters=_owned(module, layers),
        crossings=_crossings(pixels, layers, output),
    )


def extract(graph: LayerGraph, module: nn.Module, start: int, stop: int) -> fx.GraphModule:
    """Make a module of ``layers[start:stop]`` that shares its parameters with ``module``.

    Args:
        graph: Where the layers are.
        module: ``graph.module`` or a copy of it.
        start: A cut; the module's argument is the tensor there, which it never modifies.
        stop: A cut; the module's result is the tensor there.

    Raises:
        PluginError: When ``start`` or ``stop`` is not a cut.
    """
    return _copy(graph, module, start, stop, _crossing(graph, stop))


def extract_layer(graph: LayerGraph, module: nn.Module, start: int, index: int) -> fx.GraphModule:
    """Make a module of ``layers[start:index + 1]`` whose result is that of layer ``index``.

    Args:
        graph: Where the layers are.
        module: As for ``extract``.
        start: A cut at or below the layer.
        index: Any layer; its result is whatever the network computes there.

    Raises:
        PluginError: When ``start`` is not a cut.
    """
    return _copy(graph, module, start, index + 1, graph.layers[index])


def _crossing(graph: LayerGraph, index: int) -> fx.Node:
    if index not in graph.crossings:
        raise PluginError(f"Expected a cut point, got layer {index}, past which more flows.")
    return graph.crossings[index]


def _copy(
    graph: LayerGraph, module: nn.Module, start: int, stop: int, result: fx.Node
) -> fx.GraphModule:
    """Make a module of ``layers[start:stop]`` that returns ``result``."""
    entry = _crossing(graph, start)
    segment = fx.Graph()
    value = segment.placeholder("x")
    copies = {entry: value}
    layers = graph.layers[start:stop]
    if start > 0 and any(_modifies(node, entry, module) for node in layers):
        copies[entry] = segment.call_function(torch.clone, (value,))

    def translate(node: fx.Node) -> fx.Node:
        if node not in copies and node.op == "get_attr":
            copies[node] = segment.node_copy(node)
        return copies[node]

    for node in layers:
        copies[node] = segment.node_copy(node, translate)
    segment.output(copies[result])
    return fx.GraphModule(module, segment)


def describe(graph: LayerGraph, image_size: int, key: str) -> tuple[tuple[Layer, ...], list[Cut]]:
    """List layers and cut points, with shapes and multiply-adds at one image size.

    Runs the graph on the meta device, node by node, so that nothing is computed.

    Raises:
        PluginError: When the network does not run at this size.
    """
    try:
        values, below = _measure(graph, image_size)
    except Exception as error:
        raise PluginError(
            f"{key}: does not run on images of {image_size} x {image_size} pixels "
            f"({_first_line(error)}); choose another image size."
        ) from error
    layers = tuple(
        Layer(name, _kind(node, graph.module), _count(graph.module, owned))
        for name, node, owned in zip(graph.names, graph.layers, graph.parameters, strict=True)
    )
    cuts = [Cut(0, (image_size, image_size, 3), 0)]
    for index, node in graph.crossings.items():
        value = values.get(node)
        if index and isinstance(value, Tensor) and value.ndim and value.shape[0] == _BATCH:
            cuts.append(Cut(index, tuple(value.shape[1:]), below[index] // (2 * _BATCH)))
    return layers, cuts


class _Recorder(fx.Interpreter):
    """Keeps every value, and the multiply-adds counted before each node."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.counter = counter
        self.flops: list[int] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op.startswith("call_"):
            self.flops.append(self.counter.get_total_flops())
        return result


def _measure(graph: LayerGraph, image_size: int) -> tuple[dict[fx.Node, Any], list[int]]:
    """Return each node's value on the meta device and the operations below each index."""
    tensors = [*graph.module.parameters(), *graph.module.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor.to("meta") for tensor in tensors}
    for parameter in graph.module.parameters():
        memo[id(parameter)] = nn.Parameter(memo[id(parameter)])
    # Gradients stay on: without them attention takes a fused path that no counter knows.
    module = copy.deepcopy(graph.module, memo)
    pixels = torch.empty(_BATCH, 3, image_size, image_size, device="meta")
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        recorder = _Recorder(module, counter)
        recorder.run(pixels)
    copies = dict(zip(graph.module.graph.nodes, module.graph.nodes, strict=True))
    values = {node: recorder.env.get(copied) for node, copied in copies.items()}
    return values, [0, *recorder.flops]


def _keep_only(graph: fx.Graph, output: fx.Node) -> None:
    """End the graph at ``output`` and erase what it does not need, assertions included."""
    needed, stack = {output}, [output]
    while stack:
        for value in stack.pop().all_input_nodes:
            if value not in needed:
                needed.add(value)
                stack.append(value)
    for node in reversed(list(graph.nodes)):
        if node not in needed and node.op != "placeholder":
            graph.erase_node(node)
    graph.output(output)


def _owned(module: nn.Module, layers: tuple[fx.Node, ...]) -> tuple[tuple[str, ...], ...]:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    seen: set[int] = set()
    owned = []
    for node in layers:
        mine = []
        for name in _used(node, module):
            if name in parameters and id(parameters[name]) not in seen:
                seen.add(id(parameters[name]))
                mine.append(name)
        owned.append(tuple(mine))
    return tuple(owned)


def _used(node: fx.Node, module: nn.Module) -> Iterator[str]:
    if node.op == "call_module":
        for name, _ in module.get_submodule(str(node.target)).named_parameters():
            yield f"{node.target}.{name}"
    for value in node.all_input_nodes:
        if value.op == "get_attr":
            yield str(value.target)


def _crossings(pixels: fx.Node, layers: tuple[fx.Node, ...], output: fx.Node) -> dict[int, fx.Node]:
    position = {node: index for index, node in enumerate(layers)}
    last_use = {
        node: max((position.get(user, len(layers)) for user in node.users), default=-1)
        for node in (pixels, *layers)
    }
    last_use[output] = len(layers)
    crossings = {}
    alive = {pixels}
    for index in range(len(layers) + 1):
        if index:
            alive.add(layers[index - 1])
        alive = {node for node in alive if last_use[node] >= index}
        if len(alive) == 1:
            crossings[index] = next(iter(alive))
    return crossings


def _modifies(node: fx.Node, value: fx.Node, module: nn.Module) -> bool:
    """Say whether a layer works in place on a value."""
    if not node.args or node.args[0] is not value:
        return False
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return node.target in _IN_PLACE_OPERATORS or bool(node.kwargs.get("inplace", False))


def _kind(node: fx.Node, module: nn.Module) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    if node.op == "call_method":
        return str(node.target)
    return cast("Callable[..., Any]", node.target).__name__


def _count(module: nn.Module, names: tuple[str, ...]) -> int:
    return sum(module.get_parameter(name).numel() for name in names)


def _is_module_class(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
