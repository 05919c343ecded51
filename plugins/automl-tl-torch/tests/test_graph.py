from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from automl_tl.errors import PluginError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec
from automl_tl_torch import graph as graphs
from automl_tl_torch.catalog import torchvision_backbones
from automl_tl_torch.network import Network, build
from automl_tl_torch.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CATALOG = {backbone.name: backbone for backbone in torchvision_backbones()}
SMALL = {
    "densenet121": 64,
    "mobilenet_v2": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "vit_b_32": 224,
}
CPU = torch.device("cpu")


def network(name: str, size: int) -> Network:
    return build(NetworkSpec(f"torch/{name}", size, None, "random:0"), CATALOG[name], CPU)


def pixels(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def check_cuts(name: str, size: int, every: int) -> None:
    """Outputs agree with torchvision's own, through several cuts, and inputs stay untouched."""
    built = network(name, size)
    built.eval()
    info = built.info
    images = pixels(2, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = CATALOG[name].load(None).eval()
    normalised = built.segment(0, 0)(images)
    last = info.layers[-1].name
    with torch.inference_mode():
        expected = create_feature_extractor(original, [last])(normalised.contiguous())[last]
        whole = built.segment(0, len(info.layers))(images)
        assert_close(whole, expected)
        assert whole.shape[1] == info.features
        value, at = images, 0
        for cut in [*info.cuts[1:-1:every], info.cuts[-1]]:
            before = value.clone()
            below = value
            value = built.segment(at, cut.index)(below)
            assert torch.equal(below, before), f"segment {at}:{cut.index} changes its input"
            assert tuple(value.shape) == (2, *cut.shape)
            at = cut.index
        assert_close(value, expected)


@pytest.mark.parametrize("name", SMALL)
def test_segments_compose_to_torchvisions_features(name: str) -> None:
    check_cuts(name, SMALL[name], every=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_model_runs_through_all_its_cuts(name: str) -> None:
    backbone = CATALOG[name]
    if backbone.parameters > 200_000_000:
        pytest.skip("too large to compute here; its graph is checked on the meta device")
    size = backbone.input_size if backbone.fixed_size else max(backbone.min_size, 64)
    check_cuts(name, size, every=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_model_has_cuts_and_the_published_cost(name: str) -> None:
    backbone = CATALOG[name]
    # RegNet's builder computes with tensors, which the meta device does not.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        original = backbone.load(None)
    graph = trace(original, backbone.key)
    layers, cuts = graphs.describe(graph, backbone.input_size, backbone.key)
    assert len({layer.name for layer in layers}) == len(layers)
    assert cuts[0].shape == (backbone.input_size, backbone.input_size, 3)
    assert cuts[-1].index == len(layers)
    assert len(cuts) >= 12
    assert len(cuts[-1].shape) == (1 if name.startswith("vit") else 3)
    assert [cut.flops for cut in cuts] == sorted(cut.flops for cut in cuts)
    classifier = sum(p.numel() for p in original.get_submodule(last_child(original)).parameters())
    assert sum(layer.parameters for layer in layers) == (
        sum(p.numel() for p in original.parameters()) - classifier
    )
    published = backbone.facts["gflops"]
    assert published * 0.7 < cuts[-1].flops / 1e9 <= published + 1e-3


def last_child(module: nn.Module) -> str:
    return [name for name, child in module.named_children() if list(child.parameters())][-1]


def test_residual_blocks_have_no_cut_inside() -> None:
    built = network("resnet18", 64)
    cuts = {cut.index for cut in built.info.cuts}
    names = [layer.name for layer in built.info.layers]
    assert names[:5] == ["conv1", "bn1", "relu", "maxpool", "layer1.0.conv1"]
    assert {0, 1, 2, 3, 4}.issubset(cuts)
    assert names.index("layer1.0.bn1") not in cuts
    assert names.index("layer1.0.add") not in cuts
    assert names.index("layer1.1.conv1") in cuts


def test_names_are_those_of_torchvisions_feature_extraction() -> None:
    _, expected = models.feature_extraction.get_graph_node_names(
        models.mobilenet_v2(), suppress_diff_warning=True
    )
    names = [layer.name for layer in network("mobilenet_v2", 64).info.layers]
    assert names == expected[1 : 1 + len(names)]


def test_flops_and_shapes_of_a_network_counted_by_hand() -> None:
    built = build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(Toy), CPU)
    info = built.info
    # 3x3 convolutions: 8*8*4 outputs of 3*9 products, then 4*4*6 outputs of 4*9.
    assert [(cut.index, cut.shape, cut.flops) for cut in info.cuts] == [
        (0, (8, 8, 3), 0),
        (1, (4, 8, 8), 8 * 8 * 4 * 27),
        (3, (4, 8, 8), 8 * 8 * 4 * 27),
        (4, (6, 4, 4), 8 * 8 * 4 * 27 + 4 * 4 * 6 * 36),
    ]
    assert [(layer.name, layer.kind, layer.parameters) for layer in info.layers] == [
        ("first", "Conv2d", 4 * 27),
        ("mul", "mul", 4),
        ("add", "add", 0),
        ("second", "Conv2d", 6 * 36),
    ]
    assert info.features == 6


class Toy(nn.Module):
    """A residual scale between two convolutions, pooled in every spelling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._assert(x.shape[1] == 4, "channels")
        x = x + self.scale * x
        x = self.second(x)
        return self.head(self.drop(torch.flatten(x.mean([2, 3]), 1)))


class Branching(Toy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Headless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class InPlace(Toy):
    """Works in place on what flows past a cut."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x += 1
        x = nn.functional.relu(x, inplace=True)
        return self.head(self.second(x).mean((2, 3)))


def toy(kind: Callable[[], nn.Module]) -> Backbone:
    def load(path: Path | None) -> nn.Module:
        return kind()

    return Backbone("toy", "torch", load, input_size=8, parameters=1, min_size=1)


@pytest.mark.parametrize(
    ("kind", "words"), [(Branching, "trace"), (Headless, "classifier"), (nn.ReLU, "no such child")]
)
def test_networks_that_cannot_be_backbones_are_refused(kind: type[nn.Module], words: str) -> None:
    with pytest.raises(PluginError, match=f"torch/toy.*{words}"):
        build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(kind), CPU)


def test_segments_copy_what_they_would_change_in_place() -> None:
    built = build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(InPlace), CPU)
    assert [cut.index for cut in built.info.cuts] == [0, 1, 2, 3, 4]
    whole = built.segment(0, 4)(pixels(2, 8))
    value = built.segment(0, 1)(pixels(2, 8))
    for start in (1, 2):
        before = value.clone()
        following = built.segment(start, start + 1)(value)
        assert torch.equal(value, before)
        value = following
    assert_close(built.segment(3, 4)(value), whole)


def test_what_a_hook_changes_in_place_is_copied_too() -> None:
    def double(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        inputs[0].mul_(2)

    def hooked() -> nn.Module:
        network = Toy()
        network.second.register_forward_pre_hook(double)
        return network

    made = build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(hooked), CPU)
    value = made.segment(0, 3)(pixels(2, 8))
    before = value.clone()
    made.segment(3, 4)(value)
    assert torch.equal(value, before)


class Twice(nn.Identity):
    """Cannot be traced, and is no pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x if x.shape[0] > 0 else x


def test_a_subclass_of_a_pooling_layer_belongs_to_the_backbone() -> None:
    def twice() -> nn.Module:
        network = Toy()
        network.drop = Twice()  # type: ignore[assignment]
        return network

    made = build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(twice), CPU)
    assert made.info.layers[-1].kind == "Twice"


def test_a_segment_needs_cuts() -> None:
    built = network("resnet18", 64)
    names = [layer.name for layer in built.info.layers]
    with pytest.raises(PluginError, match="cut point"):
        built.segment(names.index("layer1.0.bn1"), len(names))


def test_a_size_that_does_not_work_is_named() -> None:
    built = build(NetworkSpec("torch/toy", 8, None, "random:0"), toy(FixedSize), CPU)
    with pytest.raises(PluginError, match="8 x 8 pixels"):
        _ = built.info


class FixedSize(Toy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x) + torch.zeros(1, 4, 9, 9)).mean((2, 3)))
