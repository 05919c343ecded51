"""Where a network's classifier begins, and so where the backbone ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from automl_tl.errors import PluginError
from automl_tl_torch.plain import is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

_POOLING_MODULES = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Identity,
)
_POOLING_CALLS: tuple[Any, ...] = (
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    torch.flatten,
    F.dropout,
    "flatten",
)
_MEAN_CALLS: tuple[Any, ...] = (torch.mean, "mean")
_SPATIAL = ((2, 3), (-2, -1), (-1, -2), (3, 2))


def find_output(
    network: nn.Module, graph: fx.Graph, names: Mapping[fx.Node, str], key: str
) -> fx.Node:
    """Return the operation whose result leaves the backbone.

    The classifier is the last child that owns parameters, with all that follows it. Pooling over
    both spatial axes, flattening and dropout right before it go too, because the head pools by
    itself. The rule holds for all of torchvision's classification models: what is a part of the
    network there stays (a vision transformer's choice of the class token, Swin's norm and
    permutation), and the norm inside the classifier of ConvNeXt and MaxViT goes.

    Args:
        network: What was traced.
        graph: Its graph.
        names: Qualified names of the graph's operations.
        key: Of the backbone, for messages.

    Raises:
        PluginError: When no child is such a classifier.
    """
    node = _features(network, graph, names, key)
    while _is_pooling(node, network):
        node = node.all_input_nodes[0]
    return node


def last_child(network: nn.Module) -> str:
    """Return the name of the last child that owns parameters, empty when none does."""
    owners = [
        name
        for name, child in network.named_children()
        if next(child.parameters(), None) is not None
    ]
    return owners[-1] if owners else ""


def _features(
    network: nn.Module, graph: fx.Graph, names: Mapping[fx.Node, str], key: str
) -> fx.Node:
    """Return the one value that enters the classifier."""
    classifier = last_child(network)
    inside = {
        node
        for node in graph.nodes
        if node.op.startswith("call_") and f"{names[node]}.".startswith(f"{classifier}.")
    }
    entering = {
        value
        for node in inside
        for value in node.all_input_nodes
        if value not in inside and value.op != "get_attr"
    }
    if len(entering) == 1:
        features: fx.Node = entering.pop()
        if features.op.startswith("call_"):
            return features
    raise PluginError(
        f"{key}: expected a network whose last child with parameters is its classifier and takes "
        f"one tensor, found {classifier or 'no such child'}; report it to the backbone's author."
    )


def _is_pooling(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return type(module) in _POOLING_MODULES and is_plain(module)
    if node.target in _MEAN_CALLS:
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        return isinstance(dims, list | tuple) and tuple(dims) in _SPATIAL
    return node.target in _POOLING_CALLS
