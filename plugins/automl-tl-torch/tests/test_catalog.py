from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from torchvision import models

from automl_tl_torch import catalog, plugin

CATALOG = {backbone.name: backbone for backbone in catalog.torchvision_backbones()}
NAMES = models.list_models(module=models)

DISCOVERY = """
import json, sys, time
import automl_tl.hookspecs, automl_tl.types
start = time.process_time()
from automl_tl_torch import plugin
backbones = plugin.automl_tl_backbones()
backends = plugin.automl_tl_backends()
paths = [b.pretrained.path() for b in backbones]
seconds = time.process_time() - start
frameworks = [m for m in ("torch", "torchvision", "numpy", "PIL", "onnx") if m in sys.modules]
print(json.dumps([len(backbones), len(backends), seconds, frameworks]))
"""


def test_discovery_imports_no_framework_and_is_instant() -> None:
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", DISCOVERY])) for _ in range(5)
    ]
    for backbones, backends, _, frameworks in runs:
        assert (backbones, backends, frameworks) == (len(CATALOG) + 1, 1, [])
    assert min(seconds for _, _, seconds, _ in runs) < 0.05


def test_every_classification_model_is_a_backbone() -> None:
    assert set(NAMES) <= set(CATALOG)
    assert len(CATALOG) >= 80
    assert all(key == backbone.name for key, backbone in CATALOG.items())


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_torchvisions(name: str) -> None:
    backbone = CATALOG[name]
    available = {member.name: member for member in models.get_model_weights(name)}
    weights: Any = available[backbone.facts["weights"]]
    preset = weights.transforms()
    assert backbone.pretrained is not None
    assert backbone.pretrained.name == "imagenet"
    assert backbone.pretrained.url == weights.url
    assert backbone.pretrained.path().name == weights.url.split("/")[-1]
    assert backbone.input_size == preset.crop_size[0]
    assert backbone.min_size <= backbone.input_size
    assert backbone.fixed_size == (backbone.min_size == backbone.input_size)
    assert backbone.parameters == weights.meta["num_params"]
    assert backbone.facts["gflops"] == weights.meta["_ops"]
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert backbone.facts["imagenet_accuracy"] == pytest.approx(accuracy / 100, abs=1e-5)
    # These two scale their input to [-1, 1] themselves; test_network.py compares the numbers.
    if name not in ("googlenet", "inception_v3"):
        assert list(backbone.preprocess.mean) == list(preset.mean)
        assert list(backbone.preprocess.std) == list(preset.std)


def test_weights_for_non_commercial_use_say_so_and_are_never_recommended() -> None:
    for name, backbone in CATALOG.items():
        assert backbone.pretrained is not None
        restricted = "SWAG" in backbone.facts["weights"]
        assert ("NC" in backbone.pretrained.licence) == restricted
        # Chosen only where torchvision has no others.
        if restricted:
            assert all("SWAG" in member.name for member in models.get_model_weights(name))
            assert not backbone.recommended


def test_recommended_backbones_span_the_costs() -> None:
    chosen = [backbone for backbone in CATALOG.values() if backbone.recommended]
    assert {backbone.name for backbone in chosen} == set(catalog.RECOMMENDED)
    costs = sorted(backbone.facts["gflops"] for backbone in chosen)
    assert costs[0] < 0.3 and costs[-1] > 8


def test_the_backend_offers_its_formats() -> None:
    (backend,) = plugin.automl_tl_backends()
    assert backend.name == "torch"
    assert next(iter(backend.formats.items())) == ("onnx", ".onnx")
    assert {key.split("/")[0] for key in (b.key for b in plugin.automl_tl_backbones())} == {"torch"}
