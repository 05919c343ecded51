"""A network's layers and cut points, from its graph; ``automl_tl_torch.trace`` makes it."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

from automl_tl.errors import PluginError
from automl_tl.types import Cut, Layer
from automl_tl_torch.compiler import no_compiler
from automl_tl_torch.flops import FlopCounterMode
from automl_tl_torch.plain import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 5
_KNOWN = ("torch.nn.", "torchvision.ops.")
_IN_PLACE_OPERATORS: tuple[Any, ...] = (
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
)


@dataclass(frozen=True)
class LayerGraph:
    """The graph of a backbone without its classifier.

    Attributes:
        module: All modules and parameters in use, and the graph itself.
        pixels: The graph's input.
        layers: Its operations in execution order.
        names: Their names, as torchvision's feature extraction gives them.
        output: The operation whose result leaves the backbone.
        parameters: For each layer, names in ``module`` of the parameters that it is first to use.
        crossings: For each index past which one value flows, that value.
        stages: Whether the layers are an author's stages, each of which returns one tensor.
    """

    module: fx.GraphModule
    pixels: fx.Node
    layers: tuple[fx.Node, ...]
    names: tuple[str, ...]
    output: fx.Node
    parameters: tuple[tuple[str, ...], ...]
    crossings: dict[int, fx.Node]
    stages: bool = False


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


def place(module: nn.Module, device: torch.device) -> None:
    """Let graphs in a module make new tensors on a device, where tracing recorded another one."""

    def here(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                node.args = fx.node.map_aggregate(node.args, here)
                node.kwargs = fx.node.map_aggregate(node.kwargs, here)
            part.recompile()


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
    if start > 0 and _may_modify(layers, entry, module):
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
        PluginError: When the network does not run at this size, or a stage returns something else
            than one tensor.
    """
    try:
        values, below = _measure(graph, image_size)
    except PluginError as error:
        raise PluginError(
            f"{key}: {first_line(error)}; report it to the backbone's author."
        ) from None
    except Exception as error:
        raise PluginError(
            f"{key}: does not run on images of {image_size} x {image_size} pixels "
            f"({first_line(error)}); choose another image size."
        ) from error
    layers = tuple(
        Layer(name, _kind(node, graph.module), _count(graph.module, owned))
        for name, node, owned in zip(graph.names, graph.layers, graph.parameters, strict=True)
    )
    cuts = [Cut(0, (image_size, image_size, 3), 0)]
    for index, node in graph.crossings.items():
        value = values.get(node)
        if index and value is not None and _is_batch(value):
            cuts.append(Cut(index, tuple(value.shape[1:]), below[index] // (2 * _BATCH)))
    return layers, cuts


class _Recorder(fx.Interpreter):
    """Keeps every value, and the multiply-adds counted before each node."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode, stages: bool) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.counter = counter
        self.stages = stages
        self.flops: list[int] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op.startswith("call_"):
            self.flops.append(self.counter.get_total_flops())
            if self.stages and not _is_batch(result):
                tensor = isinstance(result, Tensor)
                got = tuple(result.shape) if tensor else type(result).__name__
                raise PluginError(
                    f"expected stage {n.target} to return one tensor with a row for each of "
                    f"{_BATCH} images, got {got}"
                )
        return result


def _measure(graph: LayerGraph, image_size: int) -> tuple[dict[fx.Node, Any], list[int]]:
    """Return each node's value on the meta device and the operations below each index."""
    tensors = [*graph.module.parameters(), *graph.module.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor.to("meta") for tensor in tensors}
    for parameter in graph.module.parameters():
        memo[id(parameter)] = nn.Parameter(memo[id(parameter)])
    # Gradients stay on: without them attention takes a fused path that no counter knows.
    module = copy.deepcopy(graph.module, memo)
    place(module, torch.device("meta"))
    pixels = torch.empty(_BATCH, 3, image_size, image_size, device="meta")
    with no_compiler(), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        recorder = _Recorder(module, counter, graph.stages)
        recorder.run(pixels)
    copies = dict(zip(graph.module.graph.nodes, module.graph.nodes, strict=True))
    values = {node: recorder.env.get(copied) for node, copied in copies.items()}
    return values, [0, *recorder.flops]


def _is_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == _BATCH


def _may_modify(layers: tuple[fx.Node, ...], value: fx.Node, module: nn.Module) -> bool:
    """Say whether layers may work in place on a value, or on a view of it."""
    views = {value}
    for node in layers:
        if views.isdisjoint(node.all_input_nodes):
            continue
        if _in_place(node, views, module):
            return True
        if not _has_parameters(node, module):
            views.add(node)
    return False


def _in_place(node: fx.Node, values: set[fx.Node], module: nn.Module) -> bool:
    """Say whether a layer may work in place on one of some values."""
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        known = type(called).__module__.startswith(_KNOWN) and is_plain(called)
        if next(called.children(), None) or not known:
            return True  # what is done in there cannot be seen
        return bool(getattr(called, "inplace", False))
    if not node.args or node.args[0] not in values:
        return False
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return node.target in _IN_PLACE_OPERATORS or bool(node.kwargs.get("inplace", False))


def _has_parameters(node: fx.Node, module: nn.Module) -> bool:
    """Say whether a layer computes with parameters, and so into new memory."""
    if node.op == "call_module":
        return next(module.get_submodule(str(node.target)).parameters(), None) is not None
    return any(value.op == "get_attr" for value in node.all_input_nodes)


def _kind(node: fx.Node, module: nn.Module) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    if node.op == "call_method":
        return str(node.target)
    return cast("Callable[..., Any]", node.target).__name__


def _count(module: nn.Module, names: tuple[str, ...]) -> int:
    return sum(module.get_parameter(name).numel() for name in names)


def first_line(error: BaseException) -> str:
    """Return what an error says first, its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
