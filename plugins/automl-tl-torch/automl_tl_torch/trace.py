"""From what a backbone's loader returns to the graph of its layers."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from automl_tl.errors import PluginError
from automl_tl.layers import check_stages
from automl_tl_torch.classifier import find_output
from automl_tl_torch.graph import LayerGraph, first_line
from automl_tl_torch.plain import is_plain
from automl_tl_torch.vision import NodePathTracer, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def trace(network: nn.Module, key: str) -> LayerGraph:
    """Trace a network in evaluation mode and drop its classifier.

    ``automl_tl_torch.classifier`` says where the backbone ends. Leaf modules are those of
    ``torch.nn`` and of ``torchvision.ops``, as in torchvision's feature extraction, and any other
    that cannot be traced, which so becomes one layer. Functions called with
    ``training=self.training`` are recorded as in evaluation; arguments after the images have their
    defaults.

    Args:
        network: Returned by a ``Backbone``'s loader; its modules become part of the result.
        key: Of the backbone, for messages.

    Raises:
        PluginError: When the network cannot be traced, not all of it would be, or its classifier
            cannot be found.
    """
    if not is_plain(network):
        raise PluginError(
            f"{key}: expected a network that does all its work in its class's forward, but this "
            "one has hooks or a forward of its own, which tracing passes over; let its loader "
            "return a mapping of stages instead, or report it to the backbone's author."
        )
    tracer = _Tracer()
    try:
        graph = tracer.trace(network.eval(), _defaults(network))
    except Exception as error:
        raise PluginError(
            f"{key}: expected a network whose graph torch.fx can trace, but tracing fails with "
            f"{type(error).__name__} ({first_line(error)}); let its loader return a mapping of "
            "stages instead, or report it to the backbone's author."
        ) from error
    names: dict[fx.Node, str] = dict(tracer.node_to_qualname)
    output = find_output(network, graph, names, key)
    _keep_only(graph, output)
    return _layers(network, graph, names, output)


def chain(stages: Mapping[str, nn.Module], key: str) -> LayerGraph:
    """Make the graph of stages that are run one after the other, each a layer.

    Args:
        stages: Returned by a ``Backbone``'s loader; they become part of the result.
        key: Of the backbone, for messages.

    Raises:
        PluginError: When there is no stage, or one is no module or has a name that cannot be.
    """
    check_stages(stages, nn.Module, key)
    root, graph = nn.Module(), fx.Graph()
    names: dict[fx.Node, str] = {}
    value = graph.placeholder("x")
    for name, stage in stages.items():
        try:
            root.add_module(name, stage)
        except KeyError:
            raise PluginError(
                f"{key}: expected another name for stage {name}, which every torch.nn.Module has; "
                "report it to the backbone's author."
            ) from None
        value = graph.call_module(name, (value,))
        names[value] = name
    graph.output(value)
    return _layers(root, graph, names, value, stages=True)


class _Tracer(NodePathTracer):  # type: ignore[misc]  # torchvision is Any to mypy
    """Records a module that cannot be traced as one call, rather than giving up on the network."""

    def __init__(self) -> None:
        leaves = [cls for _, cls in inspect.getmembers(torchvision.ops, _is_module_class)]
        super().__init__(autowrap_modules=(math, torchvision.ops), leaf_modules=leaves)
        self._opaque: set[nn.Module] = set()

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        return m in self._opaque or super().is_leaf_module(m, module_qualname)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        last = next(iter(reversed(self.graph.nodes)))
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if m in self._opaque:
                raise
            self._forget(last)
            self._opaque.add(m)
            return super().call_module(m, forward, args, kwargs)

    def _forget(self, last: fx.Node) -> None:
        """Erase what was recorded after a node, but for parameters, whose nodes are used again."""
        for node in reversed(list(self.graph.nodes)):
            if node is last:
                return
            if node.op != "get_attr":
                self.graph.erase_node(node)
                del self.node_to_qualname[node]


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Return the defaults of what ``forward`` takes after the images, such as a mask."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return {one.name: one.default for one in others if one.default is not one.empty}


def _layers(
    root: nn.Module,
    graph: fx.Graph,
    names: Mapping[fx.Node, str],
    output: fx.Node,
    stages: bool = False,
) -> LayerGraph:
    module = fx.GraphModule(root, graph).eval()
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
        stages=stages,
    )


def _keep_only(graph: fx.Graph, output: fx.Node) -> None:
    """End the graph at ``output`` and erase what it does not need, assertions included.

    Of the inputs, only the first is kept.
    """
    needed, stack = {output}, [output]
    while stack:
        for value in stack.pop().all_input_nodes:
            if value not in needed:
                needed.add(value)
                stack.append(value)
    _, *others = graph.nodes
    for node in reversed(others):
        if node not in needed:
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


def _is_module_class(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)
