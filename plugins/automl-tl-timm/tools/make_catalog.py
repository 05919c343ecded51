"""Write ``automl_tl_timm/catalog.json``: the facts of timm's classification models.

Run it after a timm release, then read the diff:

    python plugins/automl-tl-timm/tools/make_catalog.py [GLOB]...

Everything comes from timm's own configuration of the weights that it chooses by default, except the
sizes that a network accepts. These are tried out on the meta device, once for each class of
networks and each of timm's answers to whether their size is fixed, because there are more than a
thousand. Weights are offered where timm publishes them as safetensors in its own form.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch

CATALOG = Path(__file__).resolve().parents[1] / "automl_tl_timm" / "catalog.json"
UNKNOWN = "not stated by timm; may follow from ImageNet's terms"
STEP = 32
SMALL = 128


def main() -> None:
    """Write the catalog; with globs, only renew the rows that fit."""
    logging.disable(logging.WARNING)
    patterns = sys.argv[1:]
    new, left_out, tried = {}, set(), {}
    for name in timm.list_models(patterns or "*"):
        try:
            new[name] = row(name, tried)
        except Exception as error:  # a model that cannot be built is named and left out
            left_out.add(name)
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
    old = json.loads(CATALOG.read_text("utf-8")) if patterns else []
    rows = {facts["name"]: facts for facts in old if facts["name"] not in left_out} | new
    lines = ",\n".join(json.dumps(rows[name]) for name in sorted(rows))
    CATALOG.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(rows)} models written to {CATALOG}")


def row(name: str, tried: dict[tuple[Any, ...], int | None]) -> dict[str, Any]:
    """Return the facts of one model.

    Args:
        name: As timm knows it.
        tried: The smallest side of each kind of networks, None for those whose size is fixed.
    """
    config = timm.get_pretrained_cfg(name)
    network = build(name)
    channels, size, width = config.input_size
    if channels != 3 or size != width:
        raise ValueError(f"it takes {config.input_size}, not square RGB images")
    kind = type(network), config.fixed_input_size, size < SMALL
    if kind not in tried:
        tried[kind] = smallest_side(network, size)
    return {
        "name": name,
        "input_size": size,
        "min_size": min(tried[kind] or size, size),
        "fixed_size": tried[kind] is None,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "mean": list(config.mean),
        "std": list(config.std),
        "repo": repository(config),
        "weights_licence": config.license or UNKNOWN,
        "facts": {"weights": config.tag or None, "classes": config.num_classes},
    }


def build(name: str) -> torch.nn.Module:
    """Return a model without numbers in it."""
    # Rates of stochastic depth are computed with tensors, which the meta device does not.
    linspace = mock.patch("torch.linspace", functools.partial(torch.linspace, device="cpu"))
    try:
        with linspace, torch.device("meta"):
            network = timm.create_model(name)
    except (NotImplementedError, RuntimeError):
        network = timm.create_model(name)
    return network.to("meta").eval()


def repository(config: Any) -> str | None:
    """Return the repository with ``model.safetensors``, None where there is none."""
    other = config.hf_hub_filename not in (None, "model.safetensors", "pytorch_model.bin")
    return None if other or config.custom_load else config.hf_hub_id


def smallest_side(network: torch.nn.Module, size: int) -> int | None:
    """Return the smallest accepted side, in steps, or None when ``size`` is the only one."""
    # A network that takes some sizes only (multiples of a window) is offered at its own alone.
    if runs(network, size - 1) and runs(network, size + STEP):
        return next((side for side in range(STEP, size, STEP) if runs(network, side)), size)
    if not runs(network, size):
        raise ValueError(f"it does not run on images of {size} pixels")
    return None


def runs(network: torch.nn.Module, side: int) -> bool:
    """Say whether the network accepts square images of this side."""
    try:
        with torch.inference_mode():
            network(torch.empty(2, 3, side, side, device="meta"))
    except Exception:  # whatever it raises, it does not
        return False
    return True


if __name__ == "__main__":
    main()
