"""Checks of what a backbone's description says; nothing is built for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.plugins import get_plugins
from automl_tl.specs import Preprocess, PretrainedWeights
from automl_tl.testing.findings import Finding, reason, some
from automl_tl.testing.weights_files import code_in
from automl_tl.weights import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.specs import Backbone
    from automl_tl.testing.bench import Bench


def check_description(bench: Bench) -> Iterator[Finding]:
    """What the backbone's description says makes sense."""
    backbone = bench.backbone
    wrong = [text for text, right in _rules(backbone).items() if not right]
    yield Finding(
        backbone.key,
        "description",
        wrong[0] if wrong else "facts that make sense",
        _told(backbone) if wrong else "that",
        not wrong,
    )


def check_weights_files(bench: Bench) -> Iterator[Finding]:
    """Weights files hold data alone, so that no code in them runs when they are loaded."""
    backbone = bench.backbone
    for weights in (backbone.pretrained, backbone.classifier):
        if weights is None:
            continue
        expected = f"{weights.name} weights that load without unpickling: best safetensors"
        try:
            path = location(weights)
            received, right = _state(path, shipped=weights.source is None)
        except Exception as error:  # a plugin may raise anything
            received, right = reason(error), False
        yield Finding(backbone.key, "weights files", expected, received, right)


def _state(path: Path, shipped: bool) -> tuple[str, bool]:
    if not isinstance(path, Path):
        return f"{path!r}, no pathlib.Path", False
    if not path.is_file():
        return (f"no file at {path}", False) if shipped else ("not on this disk, so not read", True)
    found = code_in(path)
    return (f"{path.name}, which calls {some(found)}", False) if found else (path.name, True)


def _rules(backbone: Backbone) -> dict[str, bool]:
    """Return what must be true of a description."""
    name, sizes = backbone.name, (backbone.min_size, backbone.input_size)
    preprocess = backbone.preprocess
    weights = (backbone.pretrained, backbone.classifier)
    return {
        "a name without spaces": bool(name) and not any(c.isspace() for c in name),
        f"an installed backend ({some(sorted(get_plugins().backends))})": backbone.backend
        in get_plugins().backends,
        "load to be callable": callable(backbone.load),
        "sizes in whole pixels": all(type(size) is int and size > 0 for size in sizes),
        "min_size up to input_size": sizes[0] <= sizes[1] or backbone.fixed_size,
        "a whole number of parameters above 0": type(backbone.parameters) is int
        and backbone.parameters > 0,
        "a Preprocess with 3 finite means and 3 positive deviations, rgb or bgr": isinstance(
            preprocess, Preprocess
        )
        and _three(preprocess.mean)
        and _three(preprocess.std)
        and min(preprocess.std) > 0
        and preprocess.channels in ("rgb", "bgr"),
        "PretrainedWeights or None as pretrained and classifier": all(
            one is None or isinstance(one, PretrainedWeights) for one in weights
        ),
    }


def _three(values: object) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == 3
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _told(backbone: Backbone) -> str:
    return (
        f"name={backbone.name!r}, backend={backbone.backend!r}, min_size={backbone.min_size!r}, "
        f"input_size={backbone.input_size!r}, parameters={backbone.parameters!r}, "
        f"preprocess={backbone.preprocess!r}"
    )


FACTS_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_description,
    check_weights_files,
)
