"""A network's layers: from what a person or the sampler says of the depth to an index."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from automl_tl.errors import PluginError, TrialError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automl_tl.types import NetworkInfo

_STAGE_NAME = re.compile(r"[\w-]+")


def at_depth(info: NetworkInfo, depth: float) -> int:
    """Map a depth in [0, 1], which all backbones share, to ``fine_tune_at``.

    The depth is the share of layers with weights that train, counted from the top, rounded up. The
    result is the nearest cut point below, so that all of the frozen part can be computed once.
    """
    if depth <= 0:
        return len(info.layers)
    weighted = [index for index, layer in enumerate(info.layers) if layer.parameters]
    first = weighted[len(weighted) - max(1, math.ceil(depth * len(weighted) - 1e-9))]
    if depth >= 1:
        return 0
    return max(cut.index for cut in info.cuts if cut.index <= first)


def at_layer(info: NetworkInfo, at: float | str, backbone: str) -> int:
    """Resolve what a person wrote as ``fine_tune_at``.

    Args:
        info: The network.
        at: A layer's index or name, a fraction of the layers (a float: 0.7 freezes the first 70 %),
            ``all`` or ``none``.
        backbone: Key, for the error.

    Raises:
        TrialError: When the network has no such layer.
    """
    count = len(info.layers)
    if at == "all":
        return 0
    if at == "none":
        return count
    if isinstance(at, str):
        try:
            return find_layer(info, at, backbone)
        except UsageError as error:
            raise TrialError(f"fine_tune_at: {error}") from None
    index = at if isinstance(at, int) else round(at * count)
    if not 0 <= index <= count or (isinstance(at, float) and at > 1):
        raise TrialError(
            f"fine_tune_at: expected 0 to {count} for the {count} layers of {backbone}, got {at}."
        )
    return int(index)


def find_layer(info: NetworkInfo, layer: str, backbone: str) -> int:
    """Return the index of a layer by its name.

    Args:
        info: The network.
        layer: The name.
        backbone: Key, for the error.

    Raises:
        UsageError: When the network has no such layer; names what comes close.
    """
    names = [layer.name for layer in info.layers]
    if layer not in names:
        close = difflib.get_close_matches(layer, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {len(names)} layers."
        raise UsageError(f"{backbone} has no layer {layer!r}; {hint}")
    return names.index(layer)


def check_stages(stages: Mapping[str, Any], kind: type, key: str) -> None:
    """Check what a backbone's loader returned in place of a network; see ``Backbone.load``.

    Args:
        stages: By name.
        kind: The framework's class of modules or layers.
        key: Of the backbone, for the error.

    Raises:
        PluginError: When there is none, or one has an impossible name, is no such object, or is
            there twice.
    """
    author = "report it to the backbone's author."
    if not stages:
        raise PluginError(f"{key}: expected at least one stage, got an empty mapping; {author}")
    names: dict[int, str] = {}
    for name, stage in stages.items():
        if not isinstance(name, str) or not _STAGE_NAME.fullmatch(name):
            raise PluginError(
                f"{key}: expected names of stages made of letters, digits, _ and -, got {name!r}; "
                f"{author}"
            )
        if not isinstance(stage, kind):
            raise PluginError(
                f"{key}: expected stage {name} to be a {kind.__name__} of the framework, got "
                f"{type(stage).__name__}; {author}"
            )
        if id(stage) in names:
            raise PluginError(
                f"{key}: expected every stage once, got one as {names[id(stage)]} and as {name}; "
                f"{author}"
            )
        names[id(stage)] = name
