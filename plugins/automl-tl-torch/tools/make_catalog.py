"""Write ``automl_tl_torch/catalog.json``: the facts of torchvision's classification models.

Run it after a torchvision release, then read the diff:

    python plugins/automl-tl-torch/tools/make_catalog.py

Everything comes from torchvision's own metadata, except the sizes that a network accepts, which
are tried out on the meta device.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torchvision import models

CATALOG = Path(__file__).resolve().parents[1] / "automl_tl_torch" / "catalog.json"
SMALLEST = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Write the catalog."""
    names = models.list_models(module=models)
    rows = [row(name) for name in names]
    lines = ",\n".join(json.dumps(facts) for facts in rows)
    CATALOG.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(rows)} models written to {CATALOG}")


def row(name: str) -> dict[str, Any]:
    """Return the facts of one model."""
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    size = preset.crop_size[0]
    options = build_options(name, size)
    smallest, fixed = accepted_sizes(name, options, size)
    meta = weights.meta
    # Networks with `transform_input` scale normalised pixels to [-1, 1] themselves when built
    # with weights; our networks are built without, and normalise to [-1, 1] at once.
    rescales = name in ("googlenet", "inception_v3")
    return {
        "name": name,
        "input_size": size,
        "min_size": smallest,
        "fixed_size": fixed,
        "parameters": meta["num_params"],
        "mean": [0.5] * 3 if rescales else list(preset.mean),
        "std": [0.5] * 3 if rescales else list(preset.std),
        "weights": weights.name,
        "url": weights.url,
        "weights_licence": "CC-BY-NC-4.0" if "SWAG" in weights.name else None,
        "imagenet_accuracy": round(meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
        "gflops": meta["_ops"],
        "file_mb": meta["_file_size"],
        "options": options,
    }


def build_options(name: str, size: int) -> dict[str, Any]:
    """Return what ``get_model`` must be told beside the name."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_") and size != 224:
        return {"image_size": size}
    return {}


def accepted_sizes(name: str, options: dict[str, Any], size: int) -> tuple[int, bool]:
    """Return the smallest accepted side from 32 up, and whether it is the only one."""
    # RegNet's builder computes with tensors, which the meta device does not.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = models.get_model(
            name,
            weights=None,
            **{**options, "init_weights": False} if "init_weights" in options else options,
        )
    network = network.to("meta").eval()
    smallest = next(side for side in range(SMALLEST, size + 1) if runs(network, side))
    others = [*range(smallest, size, 13), size - 1, size + 1, size + 32]
    accepted = [runs(network, side) for side in others if side != size]
    if all(accepted):
        return smallest, False
    # A network that takes some sizes only (multiples of a window) is offered at its own alone.
    return size, True


def runs(network: torch.nn.Module, side: int) -> bool:
    """Say whether the network accepts square images of this side."""
    try:
        network(torch.empty(2, 3, side, side, device="meta"))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


if __name__ == "__main__":
    main()
