"""The output of any layer, and the original classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torchvision.models.feature_extraction import create_feature_extractor

from automl_tl.errors import UsageError, WeightsError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec, Source
from automl_tl_torch.backend import TorchBackend
from automl_tl_torch.catalog import torchvision_backbones

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 64
IMAGES = 5


class Tokens(torch.nn.Module):
    """Its layers are ``patches``, ``flatten`` and ``mean``."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.classifier = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.patches(x), 2).mean(2))


TOKENS = Backbone("tokens", "torch", lambda _: Tokens(), input_size=SIZE, parameters=0)
CATALOG = {backbone.key: backbone for backbone in (TOKENS, *torchvision_backbones())}


@pytest.fixture
def backend() -> TorchBackend:
    return TorchBackend(lambda key: CATALOG[key])


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    path = tmp_path / "pixels.npy"
    random = np.random.default_rng(0)
    np.save(path, random.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8))
    return path


def original(key: str, pixels: Path, layer: str) -> NDArray[np.float32]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CATALOG[key].load(None).eval()
    x = torch.from_numpy(np.load(pixels)).permute(0, 3, 1, 2).float() / 255
    preprocess = CATALOG[key].preprocess
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    with torch.inference_mode():
        return create_feature_extractor(network, [layer])((x - mean) / std)[layer].numpy()


class Steps:
    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []

    def step(self, what: str, done: int, total: int) -> None:
        self.done.append((done, total))


@pytest.fixture
def extract(
    backend: TorchBackend, pixels: Path, tmp_path: Path
) -> Callable[..., NDArray[np.float32]]:
    def run(
        key: str, layer: str, pooling: str | None = None, source: Source | None = None
    ) -> NDArray[np.float32]:
        spec = NetworkSpec(key, SIZE, None, "random:0")
        out, steps = tmp_path / "out.npy", Steps()
        backend.extract(spec, source or Source(pixels, 0), layer, pooling, out, steps)  # type: ignore[arg-type]
        assert steps.done[-1] == (IMAGES if source is None else 2,) * 2
        assert not list(tmp_path.glob(".*"))
        return np.load(out)

    return run


# Beside a skip connection, right before an in-place ReLU, inside an attention block.
LAYERS = [
    ("torch/resnet18", "layer2.0.conv2"),
    ("torch/resnet18", "layer1.0.bn2"),
    ("torch/squeezenet1_1", "features.3.expand1x1"),
    ("torch/swin_t", "features.1.0.norm1"),
]


@pytest.mark.parametrize(("key", "layer"), LAYERS)
def test_it_is_what_torchvision_extracts(extract, pixels: Path, key: str, layer: str) -> None:
    expected = original(key, pixels, layer)
    found = extract(key, layer)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_pooling_finds_the_sides_of_a_map(extract, pixels: Path) -> None:
    first = original("torch/resnet18", pixels, "layer2.0.conv2").max(axis=(2, 3))
    found = extract("torch/resnet18", "layer2.0.conv2", "max")
    np.testing.assert_allclose(found, first, rtol=1e-4, atol=1e-5)
    last = original("torch/swin_t", pixels, "features.1.0.norm1").mean(axis=(1, 2))
    found = extract("torch/swin_t", "features.1.0.norm1", "avg")
    np.testing.assert_allclose(found, last, rtol=1e-3, atol=1e-5)
    with pytest.raises(UsageError, match=r"spatial map, but flatten returns \(8, 64\)"):
        extract("torch/tokens", "flatten", "avg")


def test_a_stored_cut_below_gives_the_same(
    backend: TorchBackend, extract, pixels: Path, tmp_path: Path
) -> None:
    spec = NetworkSpec("torch/resnet18", SIZE, None, "random:0")
    info = backend.describe(spec)
    names = [layer.name for layer in info.layers]
    cut = next(cut for cut in info.cuts if cut.index == names.index("layer1.0.relu_1") + 1)
    stored = tmp_path / "cut.npy"
    rows = np.array([4, 1])
    np.save(stored, np.zeros((2, *cut.shape), np.float32))
    backend.run(spec, Source(pixels, 0, rows=rows), cut.index, None, stored, Steps())  # type: ignore[arg-type]
    expected = extract("torch/resnet18", "layer2.0.conv2")[rows]
    source = Source(stored, cut.index)
    np.testing.assert_allclose(
        extract("torch/resnet18", "layer2.0.conv2", source=source), expected, rtol=1e-4, atol=1e-5
    )
    pooled = extract("torch/resnet18", "layer1.0.relu_1", "avg", source)
    np.testing.assert_allclose(pooled, np.load(stored).mean(axis=(2, 3)), rtol=1e-5)


def test_layers_that_cannot_be_had_are_told(extract, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no layer 'layer2\.0\.conv9'; did you mean layer2"):
        extract("torch/resnet18", "layer2.0.conv9")
    with pytest.raises(UsageError, match=r"chunk: .*one tensor an image.*returns tuple"):
        extract("torch/shufflenet_v2_x0_5", "stage2.1.chunk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pixels.npy"]


def test_the_classifier_is_the_original_one(backend: TorchBackend, tmp_path: Path) -> None:
    backbone = CATALOG["torch/squeezenet1_1"]
    network = backbone.load(None).eval()
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    model = backend.classifier(backbone.key, tmp_path / "whole.pth")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    preprocess = backbone.preprocess
    mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
    x = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(x).numpy()
    np.testing.assert_allclose(model.logits(pixels), expected, rtol=1e-4, atol=1e-5)

    headless = {n: v for n, v in network.state_dict().items() if not n.startswith("classifier")}
    torch.save(headless, tmp_path / "headless.pth")
    with pytest.raises(WeightsError, match=r"2 missing \(first classifier"):
        backend.classifier(backbone.key, tmp_path / "headless.pth")
