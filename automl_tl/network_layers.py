"""The layers of one network, as people list and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.cache.store import Store
from automl_tl.errors import UsageError
from automl_tl.host import BackendHost
from automl_tl.layers import find_layer
from automl_tl.networks import describe
from automl_tl.plugins import get_plugins
from automl_tl.types import NetworkSpec

if TYPE_CHECKING:
    from automl_tl.specs import Backbone
    from automl_tl.types import NetworkInfo


def one_backbone(pattern: str) -> Backbone:
    """Return the backbone that a glob of keys or names fits, or raise ``UsageError``."""
    found = get_plugins().match(pattern)
    if len(found) > 1:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        named = f"{', '.join(one.key for one in found[:3])}{more}"
        raise UsageError(f"Expected one backbone, but {pattern!r} fits {named}; name one of them.")
    return found[0]


def list_layers(pattern: str, store: Store | None = None) -> dict[str, Any]:
    """Return the layers of a backbone at its own image size; needs no weights.

    Args:
        pattern: Key, or a glob that fits one backbone.
        store: Where layers are remembered; the user's cache by default.

    Returns:
        JSON-ready: ``key``, ``image_size``, ``features`` (width of the pooled output),
        ``parameters`` and ``layers``, in execution order: ``index``, ``name``, ``kind``,
        ``parameters``, ``cut`` (whether one tensor alone flows past the layer, so that
        ``index + 1`` is a cut point) and ``shape`` (of one image there, else None).

    Raises:
        UsageError: When not exactly one backbone fits.
    """
    backbone = one_backbone(pattern)
    network = NetworkSpec(backbone.key, backbone.input_size, None, "random:0")
    with BackendHost(backbone.backend, "cpu") as host:
        info = describe(network, host, store or Store())
    shapes = {cut.index: cut.shape for cut in info.cuts}
    return {
        "key": backbone.key,
        "image_size": backbone.input_size,
        "features": info.features,
        "parameters": sum(layer.parameters for layer in info.layers),
        "layers": [
            {
                "index": index,
                "name": layer.name,
                "kind": layer.kind,
                "parameters": layer.parameters,
                "cut": index + 1 in shapes,
                "shape": list(shapes[index + 1]) if index + 1 in shapes else None,
            }
            for index, layer in enumerate(info.layers)
        ],
    }


def layer_index(info: NetworkInfo, layer: str | None, key: str) -> int:
    """Resolve what a person wrote as a layer: its name, else its index; None is the last one.

    Raises:
        UsageError: When the network has no such layer.
    """
    count = len(info.layers)
    if layer is None:
        return count - 1
    if not layer.isdecimal() or any(one.name == layer for one in info.layers):
        return find_layer(info, layer, key)
    if int(layer) >= count:
        raise UsageError(
            f"--layer {layer}: expected 0 to {count - 1} for the {count} layers of {key}; "
            f"`automl-tl backbones {key} --layers` lists them."
        )
    return int(layer)
