"""Every classification model of timm, as ``torch/timm.NAME``. Importing this imports no framework.

``catalog.json`` is written by ``tools/make_catalog.py``.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from automl_tl.errors import WeightsError
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone, HubFile, Preprocess, PretrainedWeights


@hookimpl
def automl_tl_backbones() -> list[Backbone]:
    """The models of timm, with the weights that timm chooses by default."""
    text = Path(__file__).with_name("catalog.json").read_text(encoding="utf-8")
    return [_backbone(**row) for row in json.loads(text)]


def load(name: str, weights: Path | None, classifier: bool = False) -> Any:
    """Build a model of timm, with the weights of a safetensors file or random ones."""
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        overlay = {"state_dict": load_file(weights)} if weights else {}
        network: Any = timm.create_model(name, bool(weights), pretrained_cfg_overlay=overlay)
    except (KeyError, OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"torch/timm.{name}: expected a safetensors file with the weights of this network, got "
            f"{weights} ({str(error).splitlines()[-1].strip()}); give another file, or none."
        ) from error
    if not classifier and not network.num_classes:
        network.reset_classifier(1)  # the backend finds the end of the backbone by its classifier
    if not classifier and getattr(network, "output_fmt", None) == "NHWC":
        features = network.forward_features
        network.forward_features = lambda images: features(images).permute(0, 3, 1, 2)
    return network


def _backbone(name: str, mean: Any, std: Any, repo: str | None, facts: Any, **row: Any) -> Backbone:
    licence, label = row.pop("weights_licence"), "imagenet" if facts["classes"] == 1000 else "timm"
    return Backbone(
        name=f"timm.{name}",
        backend="torch",
        load=functools.partial(load, name),
        load_classifier=functools.partial(load, name, classifier=True),
        preprocess=Preprocess(tuple(mean), tuple(std)),
        pretrained=PretrainedWeights(label, licence=licence, hub=HubFile(repo)) if repo else None,
        licence="Apache-2.0",
        packages=("timm",),
        facts=facts,
        **row,
    )
