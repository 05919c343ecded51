"""What the plugin announces, without any framework."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from automl_tl import tiny
from automl_tl_keras import catalog, plugin, weights

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = {backbone.name: backbone for backbone in catalog.applications()}

DISCOVERY = """
import importlib.metadata, json, sys, time
import automl_tl.hookspecs, automl_tl.types
start = time.process_time()
from automl_tl_keras import plugin
backbones = plugin.automl_tl_backbones()
backends = plugin.automl_tl_backends()
paths = [b.pretrained.path() for b in backbones]
seconds = time.process_time() - start
known = ("keras", "tensorflow", "h5py", "numpy", "safetensors")
frameworks = [m for m in known if m in sys.modules]
print(json.dumps([len(backbones), len(backends), seconds, frameworks]))
"""


def test_discovery_imports_no_framework_and_is_instant() -> None:
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", DISCOVERY])) for _ in range(5)
    ]
    for backbones, backends, _, frameworks in runs:
        assert (backbones, backends, frameworks) == (len(CATALOG) + 1, 1, [])
    assert min(seconds for _, _, seconds, _ in runs) < 0.05


def test_all_forty_models_and_the_smaller_widths_are_there() -> None:
    narrow = {name for name in CATALOG if "-" in name}
    assert len(CATALOG) - len(narrow) == 40
    assert narrow == {
        "MobileNet-0.25",
        "MobileNet-0.5",
        "MobileNet-0.75",
        "MobileNetV2-0.35",
        "MobileNetV2-0.5",
        "MobileNetV2-0.75",
        "MobileNetV3Large-0.75",
        "MobileNetV3Small-0.75",
    }


@pytest.mark.parametrize(
    ("name", "size", "smallest", "parameters"),
    [
        ("VGG16", 224, 32, 138_357_544),
        ("MobileNetV2", 224, 32, 3_504_872),
        ("InceptionV3", 299, 75, 23_817_352),
        ("Xception", 299, 71, 22_855_952),
        ("NASNetLarge", 331, 32, 88_753_150),
        ("EfficientNetB7", 600, 32, 66_347_960),
        ("EfficientNetV2L", 480, 32, 118_515_272),
        ("MobileNet-0.75", 192, 32, 2_585_560),
    ],
)
def test_facts_are_the_published_ones(name: str, size: int, smallest: int, parameters: int) -> None:
    backbone = CATALOG[name]
    assert (backbone.input_size, backbone.min_size) == (size, smallest)
    assert backbone.parameters == parameters
    assert not backbone.fixed_size


@pytest.mark.parametrize(
    ("name", "channels", "pixel", "value"),
    [
        ("VGG16", "bgr", 0, -103.939),
        ("ResNet50", "bgr", 255, 255 - 103.939),
        ("ResNet50V2", "rgb", 255, 1),
        ("MobileNetV2", "rgb", 0, -1),
        ("DenseNet121", "rgb", 255, (1 - 0.485) / 0.229),
        ("EfficientNetB0", "rgb", 255, 255),
        ("ConvNeXtTiny", "rgb", 128, 128),
        ("MobileNetV3Large", "rgb", 7, 7),
    ],
)
def test_preprocessing_gives_the_first_channel_the_value_of_preprocess_input(
    name: str, channels: str, pixel: int, value: float
) -> None:
    preprocess = CATALOG[name].preprocess
    assert preprocess.channels == channels
    assert (pixel / 255 - preprocess.mean[0]) / preprocess.std[0] == pytest.approx(value, abs=1e-6)


def test_every_backbone_names_two_published_files() -> None:
    files = []
    for backbone in CATALOG.values():
        for published in (backbone.pretrained, backbone.classifier):
            assert published is not None and published.url is not None
            assert published.name == "imagenet"
            assert published.url.startswith("https://storage.googleapis.com/")
            assert published.path().name.endswith(".h5")
            files.append(published.path())
    assert len(set(files)) == 2 * len(CATALOG)
    nasnet = CATALOG["NASNetMobile"].pretrained
    assert nasnet is not None and nasnet.path().name == "nasnet_mobile_no_top.h5"


def test_only_the_files_of_the_first_mobilenets_lack_a_hash() -> None:
    lacking = {
        name
        for name, backbone in CATALOG.items()
        for published in (backbone.pretrained, backbone.classifier)
        if published and not published.sha256 and not published.md5
    }
    assert {name.partition("-")[0] for name in lacking} == {"MobileNet", "MobileNetV2"}


def test_recommended_backbones_span_the_costs() -> None:
    chosen = [backbone for backbone in CATALOG.values() if backbone.recommended]
    assert {backbone.name for backbone in chosen} == set(catalog.RECOMMENDED)
    costs = sorted(backbone.facts["gflops"] for backbone in chosen)
    assert costs[0] < 0.4 and costs[-1] > 8


def test_tiny_is_the_same_backbone_in_both_plugins() -> None:
    from automl_tl_torch.tiny import tiny_backbone as torch_tiny

    ours, theirs = plugin.automl_tl_backbones()[0], torch_tiny()
    assert (ours.key, theirs.key) == ("keras/tiny", "torch/tiny")
    for name in ("input_size", "min_size", "parameters", "preprocess", "small_images", "licence"):
        assert getattr(ours, name) == getattr(theirs, name)
    for backbone in (ours, theirs):
        assert backbone.pretrained is not None
        assert backbone.pretrained.path() == tiny.weights_path()


def test_the_backend_offers_its_formats() -> None:
    (backend,) = plugin.automl_tl_backends()
    assert backend.name == "keras"
    assert next(iter(backend.formats.items())) == ("onnx", ".onnx")
    assert set(backend.formats) == {"onnx", "keras", "savedmodel", "litert", "safetensors"}
    assert all(backbone.key.startswith("keras/") for backbone in plugin.automl_tl_backbones())


def test_files_lie_where_keras_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert weights.weights_path("x.h5") == tmp_path / ".keras" / "models" / "x.h5"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    assert weights.weights_path("x.h5") == tmp_path / "elsewhere" / "models" / "x.h5"
