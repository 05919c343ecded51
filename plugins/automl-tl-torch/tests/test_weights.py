from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from automl_tl.errors import PluginError, WeightsError
from automl_tl_torch import catalog, weights
from automl_tl_torch.catalog import torchvision_backbones

CATALOG = {backbone.name: backbone for backbone in torchvision_backbones()}
SHARED = Path(os.environ.get("AUTOML_TL_SHARED") or Path(__file__).resolve().parents[4] / "shared")


def squeezenet(seed: int = 0, classes: int = 1000) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.squeezenet1_1(num_classes=classes)


def load(path: Path, name: str = "squeezenet1_1") -> nn.Module:
    return CATALOG[name].load(path)


def assert_same(actual: nn.Module, expected: nn.Module, part: str = "") -> None:
    want = expected.state_dict()
    got = actual.state_dict()
    names = [name for name in want if name.startswith(part)]
    assert names and all(torch.equal(got[name], want[name]) for name in names)


@pytest.mark.parametrize("form", ["plain", "state_dict", "model", "module", "old", "safetensors"])
def test_every_common_form_loads(tmp_path: Path, form: str) -> None:
    original = squeezenet()
    tensors: Any = original.state_dict()
    path = tmp_path / "weights.bin"
    if form == "safetensors":
        safetensors.torch.save_file(tensors, path)
    elif form == "old":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    else:
        if form == "module":
            tensors = OrderedDict((f"module.{name}", value) for name, value in tensors.items())
        elif form != "plain":
            tensors = {form: tensors, "epoch": 3}
        torch.save(tensors, path)
    assert_same(load(path), original)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    original = squeezenet().half()
    safetensors.torch.save_file(original.state_dict(), path)
    loaded = load(path)
    assert_same(loaded, original.float())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("classes", [7, 0])
def test_the_classifier_may_be_of_another_width_or_missing(tmp_path: Path, classes: int) -> None:
    original = squeezenet(classes=classes or 1000)
    tensors = original.state_dict()
    if not classes:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("classifier")}
    torch.save(tensors, tmp_path / "own.pth")
    assert_same(load(tmp_path / "own.pth"), original, "features")


def test_auxiliary_classifiers_are_left_out(tmp_path: Path) -> None:
    original = models.googlenet(aux_logits=True, init_weights=False)
    torch.save(original.state_dict(), tmp_path / "googlenet.pth")
    loaded = load(tmp_path / "googlenet.pth", "googlenet")
    assert not any(name.startswith("aux") for name in loaded.state_dict())
    assert_same(original, loaded)


def test_old_spellings_of_published_files_are_understood(tmp_path: Path) -> None:
    densenet = models.densenet121()
    old = OrderedDict(
        (name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."), value)
        for name, value in densenet.state_dict().items()
        if "num_batches_tracked" not in name
    )
    torch.save(old, tmp_path / "densenet.pth")
    assert_same(load(tmp_path / "densenet.pth", "densenet121"), densenet)


def test_networks_that_convert_by_version_load_from_safetensors(tmp_path: Path) -> None:
    mnasnet = models.mnasnet0_5()
    safetensors.torch.save_file(mnasnet.state_dict(), tmp_path / "mnasnet.safetensors")
    assert_same(load(tmp_path / "mnasnet.safetensors", "mnasnet0_5"), mnasnet)


def test_the_version_stored_by_torch_is_kept(tmp_path: Path) -> None:
    """The first MNASNet files describe another stem, which torchvision rebuilds for them."""
    tensors = models.mnasnet0_5().state_dict()
    tensors._metadata[""]["version"] = 1
    torch.save(tensors, tmp_path / "first.pth")
    with (
        pytest.warns(UserWarning, match="previous version"),
        pytest.raises(WeightsError, match="shape"),
    ):
        load(tmp_path / "first.pth", "mnasnet0_5")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("squeezenet1_0", "another shape"),
        ("resnet18", r"missing \(first features\.0\.weight\) and 122 unexpected"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, other: str, words: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(models.get_model(other).state_dict(), path)
    with pytest.raises(WeightsError, match=f"torch/squeezenet1_1.*another one.*{words}"):
        load(path)


def test_a_deeper_networks_file_is_refused_though_all_names_are_there(tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    torch.save(models.resnet34().state_dict(), path)
    with pytest.raises(WeightsError, match=r"unexpected \(first layer1\.2"):
        load(path, "resnet18")


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("form", ["torch", "pickle", "module", "script"])
def test_files_that_want_to_run_code_are_refused(tmp_path: Path, form: str) -> None:
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    if form == "torch":
        torch.save({"features.0.weight": Bomb(witness)}, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps({"features.0.weight": Bomb(witness)}))
    elif form == "module":
        torch.save(nn.Linear(2, 2), path)
    else:
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(WeightsError, match="refused for safety"):
        load(path)
    assert not witness.exists()


def whole(path: Path) -> bytes:
    torch.save(squeezenet().state_dict(), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>Not found</html>",
        b"hello",
        b"\x10\0\0\0\0\0\0\0{not json",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        "half",
        "npz",
        "storage",
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "weights.pth"
    if content == "storage":  # torch asserts that it is there; the fuzzer found that
        torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
        (key,) = set(re.findall(rb"[0-9]{12,}", path.read_bytes()))
        content = path.read_bytes().replace(key, key[::-1], 1)
    if content == "half":
        content = whole(path)[:-100_000]
    if content == "npz":
        np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
        content = (tmp_path / "arrays.npz").read_bytes()
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a weights file, or is damaged"):
        load(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_files_without_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="expected a state dict"):
        load(tmp_path / "weights.pth")


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth cannot be read \(No such file"):
        load(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("home", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_cache_is_where_torch_hub_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if home:
        monkeypatch.setenv(home, str(tmp_path / "elsewhere"))
    expected = Path(torch.hub.get_dir()) / "checkpoints" / "x.pth"
    assert weights.checkpoint_path("x.pth") == expected


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_published_weights_load_and_give_finite_features(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = SHARED / "weights" / "torch_home"
    if not home.is_dir():
        pytest.skip(f"no shared weights at {home}")
    monkeypatch.setenv("TORCH_HOME", str(home))
    published = CATALOG[name].pretrained
    assert published is not None and published.path is not None
    path = published.path()
    loaded = load(path, name).eval()
    expected = models.get_model(name, weights="DEFAULT").eval()
    assert_same(loaded, expected)


def test_a_model_that_torchvision_does_not_know() -> None:
    with pytest.raises(PluginError, match=r"torch/resnet51: torchvision .* does not know"):
        catalog.load("resnet51", {}, None)
