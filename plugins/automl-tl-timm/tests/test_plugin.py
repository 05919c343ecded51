"""The plugin as a stranger wrote it: facts without a framework, networks that the backend takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import save_file

from automl_tl.errors import WeightsError
from automl_tl.types import NetworkSpec, Source
from automl_tl_timm import plugin

if TYPE_CHECKING:
    from automl_tl.types import NetworkInfo
    from automl_tl_torch.backend import TorchBackend

timm = pytest.importorskip("timm")
FOLDER = Path(plugin.__file__).parents[1]
CATALOG = {backbone.key: backbone for backbone in plugin.automl_tl_backbones()}
SMALL = {"test_resnet": 160, "vit_tiny_patch16_224": 224, "test_efficientnet": 160}


class Quiet:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def backend() -> TorchBackend:
    from automl_tl_torch.backend import TorchBackend

    return TorchBackend(CATALOG.__getitem__)


def describe(backend: TorchBackend, name: str, side: int = 160) -> NetworkInfo:
    return backend.describe(NetworkSpec(f"torch/timm.{name}", side, None, "random:0"))


def test_discovery_imports_no_framework_and_is_quick() -> None:
    code = (
        "import sys, time; started = time.perf_counter()\n"
        "from automl_tl_timm.plugin import automl_tl_backbones\n"
        "found = automl_tl_backbones()\n"
        "loaded = {'torch', 'timm', 'huggingface_hub', 'safetensors'} & set(sys.modules)\n"
        "print(len(found), sorted(loaded), time.perf_counter() - started < 2)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split(maxsplit=1)[1].strip() == "[] True"
    assert int(found.stdout.split()[0]) > 1000


def test_it_is_short() -> None:
    assert len(Path(plugin.__file__).read_text(encoding="utf-8").splitlines()) <= 60


def test_the_catalog_is_timms_own_configuration() -> None:
    known = set(timm.list_models())
    names = [key.removeprefix("torch/timm.") for key in CATALOG]
    assert len(set(names) & known) > 0.95 * len(names)
    for name in names[::23]:
        if name not in known:
            continue
        backbone, config = CATALOG[f"torch/timm.{name}"], timm.get_pretrained_cfg(name)
        assert (3, backbone.input_size, backbone.input_size) == tuple(config.input_size)
        assert backbone.preprocess.mean == tuple(config.mean)
        assert backbone.preprocess.std == tuple(config.std)
        assert backbone.min_size <= backbone.input_size
        if backbone.pretrained is not None and backbone.pretrained.hub is not None:
            assert backbone.pretrained.hub.repo == config.hf_hub_id
            assert config.license in (None, backbone.pretrained.licence)


def test_only_a_person_who_names_a_network_gets_it() -> None:
    assert not any(backbone.recommended for backbone in CATALOG.values())
    restricted = [b for b in CATALOG.values() if b.pretrained and "nc" in b.pretrained.licence]
    assert len(restricted) > 10


@pytest.mark.parametrize("name", SMALL)
def test_two_pieces_are_the_whole(backend: TorchBackend, tmp_path: Path, name: str) -> None:
    side = SMALL[name]
    info = describe(backend, name, side)
    end = len(info.layers)
    assert len(info.cuts) > 8 and info.cuts[-1].index == end
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    spec = NetworkSpec(f"torch/timm.{name}", side, None, "random:0")
    whole = run(backend, spec, Source(tmp_path / "pixels.npy", 0), info, -1)
    assert np.isfinite(whole).all() and np.ptp(whole, axis=0).max() > 0
    for place in (len(info.cuts) // 3, 2 * len(info.cuts) // 3):
        out = tmp_path / f"{place}.npy"
        np.save(out, run(backend, spec, Source(tmp_path / "pixels.npy", 0), info, place))
        found = run(backend, spec, Source(out, info.cuts[place].index), info, -1)
        assert np.abs(found - whole).max() <= 1e-4 * np.abs(whole).max()


def run(
    backend: TorchBackend, spec: NetworkSpec, source: Source, info: NetworkInfo, place: int
) -> Any:
    cut = info.cuts[place]
    out = source.path.with_name("out.npy")
    np.save(out, np.zeros((3, *cut.shape), np.float32))
    backend.run(spec, source, cut.index, None, out, Quiet())
    return np.load(out)


def test_maps_come_channels_first(backend: TorchBackend) -> None:
    network = plugin.load("test_mambaout", None)
    assert network.output_fmt == "NHWC"
    info = describe(backend, "test_mambaout")
    assert info.cuts[-1].shape == (info.features, 5, 5)


def test_weights_and_their_classifier_are_loaded_from_safetensors(tmp_path: Path) -> None:
    import torch

    original = timm.create_model("test_resnet").eval()
    path = tmp_path / "weights.safetensors"
    save_file(original.state_dict(), path)
    images = torch.randn(2, 3, 64, 64)
    loaded = plugin.load("test_resnet", path, classifier=True).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images), original(images))


def test_other_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    pickled = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), pickled)
    for wrong in (path, pickled, tmp_path / "absent.safetensors"):
        with pytest.raises(
            WeightsError, match=r"^torch/timm\.test_resnet: expected a safeten"
        ) as e:
            plugin.load("test_resnet", wrong)
        assert str(wrong) in str(e.value) and "\n" not in str(e.value)


def test_a_network_that_is_published_without_a_classifier_is_a_backbone_too(
    backend: TorchBackend,
) -> None:
    rows = json.loads((FOLDER / "automl_tl_timm" / "catalog.json").read_text(encoding="utf-8"))
    smallest = min(
        (row for row in rows if row["facts"]["classes"] == 0), key=lambda row: row["parameters"]
    )
    info = describe(backend, smallest["name"], smallest["input_size"])
    assert info.features > 100 and info.cuts[-1].shape[0] == info.features
