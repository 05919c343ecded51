"""torchvision's classification models as backbones, from facts beside this module.

``catalog.json`` is written by ``tools/make_catalog.py``; reading it imports no framework.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import PluginError
from automl_tl.specs import Backbone, Preprocess, PretrainedWeights
from automl_tl_torch.weights import checkpoint_path, load_into

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

BACKEND = "torch"
CODE_LICENCE = "BSD-3-Clause"
WEIGHTS_LICENCE = "not stated by torchvision; may follow from ImageNet's terms"

# One good network a decade of cost, convolutional and attention, each at or near the best
# ImageNet accuracy of its size; resnet50 because everybody compares with it.
RECOMMENDED = (
    "mobilenet_v3_large",
    "efficientnet_b0",
    "resnet50",
    "convnext_tiny",
    "swin_t",
    "efficientnet_v2_s",
)


def torchvision_backbones() -> list[Backbone]:
    """Return torchvision's classification models, in alphabetical order."""
    text = Path(__file__).with_name("catalog.json").read_text(encoding="utf-8")
    return [_backbone(row) for row in json.loads(text)]


def load(
    name: str, options: Mapping[str, Any], path: Path | None, classifier: bool = False
) -> nn.Module:
    """Build one of torchvision's models.

    Args:
        name: As ``torchvision.models.get_model`` knows it.
        options: What ``get_model`` must be told beside the name.
        path: Weights file, None for random weights from torch's global generator.
        classifier: The file must hold the classifier too.

    Raises:
        PluginError: When the installed torchvision does not know the model.
        WeightsError: When the file cannot be loaded.
    """
    from automl_tl_torch.vision import torchvision

    try:
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    except ValueError as error:
        raise PluginError(
            f"{BACKEND}/{name}: torchvision {torchvision.__version__} does not know this model; "
            "install another version, or choose another backbone."
        ) from error
    if path is not None:
        load_into(network, path, f"{BACKEND}/{name}", classifier)
    return network


def _backbone(row: Mapping[str, Any]) -> Backbone:
    name, url = row["name"], row["url"]
    file = url.rpartition("/")[2]
    return Backbone(
        name=name,
        backend=BACKEND,
        load=functools.partial(load, name, row["options"]),
        load_classifier=functools.partial(load, name, row["options"], classifier=True),
        input_size=row["input_size"],
        parameters=row["parameters"],
        min_size=row["min_size"],
        fixed_size=row["fixed_size"],
        preprocess=Preprocess(mean=tuple(row["mean"]), std=tuple(row["std"])),
        pretrained=PretrainedWeights(
            name="imagenet",
            path=functools.partial(checkpoint_path, file),
            url=url,
            licence=row["weights_licence"] or WEIGHTS_LICENCE,
            sha256=file.rpartition("-")[2].partition(".")[0],
        ),
        licence=CODE_LICENCE,
        recommended=name in RECOMMENDED,
        facts={
            "imagenet_accuracy": row["imagenet_accuracy"],
            "gflops": row["gflops"],
            "weights": row["weights"],
            "file": file,
            "file_mb": row["file_mb"],
        },
    )
