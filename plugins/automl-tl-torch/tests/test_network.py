from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms._presets import ImageClassification

from automl_tl.errors import PluginError, UsageError
from automl_tl.specs import Backbone, Preprocess
from automl_tl.types import NetworkSpec
from automl_tl_torch.catalog import torchvision_backbones
from automl_tl_torch.fold import ConvNorm
from automl_tl_torch.network import Network, Normalize, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CATALOG = {backbone.name: backbone for backbone in torchvision_backbones()}
CPU = torch.device("cpu")


def network(name: str, size: int = 32, seed: int = 0) -> Network:
    spec = NetworkSpec(f"torch/{name}", size, None, f"random:{seed}", seed)
    backbone = custom(name, SMALL[name]) if name in SMALL else CATALOG[name]
    return build(spec, backbone, CPU)


def custom(name: str, make: Callable[[], nn.Module]) -> Backbone:
    def load(path: Path | None) -> nn.Module:
        return make()

    return Backbone(name, "torch", load, input_size=8, parameters=1, min_size=1)


SMALL: dict[str, Callable[[], nn.Module]] = {
    # Parameters that functions use, beside those of modules.
    "swin": functools.partial(
        models.SwinTransformer,
        patch_size=[4, 4],
        embed_dim=24,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=[7, 7],
        stochastic_depth_prob=0.0,
    ),
    # The branches of a block read the same tensors.
    "densenet": functools.partial(models.DenseNet, 8, (3, 3), 16),
}


def pixels(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def train_a_step(built: Network, start: int = 0) -> None:
    """Two large steps of gradient descent on all that is trainable."""
    stop = len(built.info.layers)
    with torch.no_grad():
        value: torch.Tensor = pixels(4, built.spec.image_size)
        if start:
            value = built.segment(0, start)(value)
    suffix = built.segment(start, stop)
    parameters = [p for p in built.module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        output = suffix(value)
        # A plain sum has no gradient below a normalisation; a random target has.
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
        nn.functional.mse_loss(output, target).backward()
        optimizer.step()


def state(built: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in built.module.state_dict().items()}


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet"])
def test_freezing_holds_weights_below_and_all_statistics(name: str) -> None:
    built = network(name)
    middle = len(built.info.layers) // 2
    start = max(cut.index for cut in built.info.cuts if cut.index <= middle)
    before = state(built)
    below = {p for names in built._graph.parameters[:middle] for p in names}
    above = {p for names in built._graph.parameters[middle:] for p in names}
    built.freeze(middle)
    train_a_step(built, start)
    after = state(built)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert below and above and not below & above
    assert changed == above, "weights above change, weights below and statistics do not"
    assert not any("running" in name or "tracked" in name for name in changed)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2", "swin"])
def test_fine_tune_at_zero_changes_every_layer_with_weights(name: str) -> None:
    built = network(name)
    before = state(built)
    built.freeze(0)
    train_a_step(built)
    after = state(built)
    names = [name for name, _ in built.module.named_parameters()]
    assert [name for name in names if torch.equal(before[name], after[name])] == []
    buffers = [name for name, _ in built.module.named_buffers()]
    assert [name for name in buffers if not torch.equal(before[name], after[name])] == []


def test_freezing_everything_leaves_nothing_to_train() -> None:
    built = network("mobilenet_v2")
    built.freeze(0)
    built.freeze(len(built.info.layers))
    assert not any(p.requires_grad for p in built.module.parameters())
    assert not any(m.training for m in built.module.modules())


def test_modes_are_set_again_each_time() -> None:
    built = network("efficientnet_b0")
    layers = [layer.name for layer in built.info.layers]
    middle = layers.index("features.4.0.block.0")
    for _ in range(2):
        built.module.train()
        built.freeze(middle)
        modes = {
            name: module.training
            for name, module in built.module.named_modules()
            if isinstance(module, nn.BatchNorm2d) or type(module).__name__ == "StochasticDepth"
        }
        paths = {name: mode for name, mode in modes.items() if "stochastic" in name}
        assert not any(mode for name, mode in modes.items() if name not in paths)
        assert paths["features.3.1.stochastic_depth"] is False
        assert paths["features.4.1.stochastic_depth"] is True


def test_dropout_works_above_and_rests_below() -> None:
    built = build(NetworkSpec("torch/drop", 8, None, "random:0"), custom("drop", Dropping), CPU)
    images = pixels(2, 8)
    forward = built.segment(0, len(built.info.layers))
    built.freeze(0)
    assert not torch.equal(forward(images), forward(images))
    built.freeze(2)  # the dropout layer is the second
    assert torch.equal(forward(images), forward(images))
    built.freeze(0)
    built.eval()
    assert torch.equal(forward(images), forward(images))


def test_a_layer_used_twice_belongs_to_its_first_use() -> None:
    built = build(NetworkSpec("torch/shared", 8, None, "random:0"), custom("shared", Shared), CPU)
    assert [layer.parameters for layer in built.info.layers] == [3 * 3, 0, 0]
    built.freeze(1)
    assert not any(p.requires_grad for p in built.module.parameters())
    built.freeze(0)
    assert all(p.requires_grad for p in built.module.parameters())


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.drop(self.first(x))).mean((2, 3)))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(torch.sigmoid(self.mix(x))).mean((2, 3)))


def test_a_copy_trains_without_touching_the_original() -> None:
    built = network("swin")
    before = state(built)
    twin = built.copy()
    assert twin.info is built.info
    twin.freeze(0)
    train_a_step(twin)
    assert all(torch.equal(value, before[name]) for name, value in state(built).items())
    assert any(not torch.equal(value, before[name]) for name, value in state(twin).items())
    built.eval()
    assert not any(p.requires_grad for p in built.module.parameters())


def test_segments_share_the_networks_parameters() -> None:
    built = network("swin")
    middle = built.info.cuts[len(built.info.cuts) // 2].index
    suffix = built.segment(middle, len(built.info.layers))
    own = {id(tensor) for tensor in built.module.parameters()}
    assert {id(tensor) for tensor in suffix.parameters()} <= own


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = network("squeezenet1_1", seed=3)
    assert torch.equal(torch.rand(3), expected)
    again, other = network("squeezenet1_1", seed=3), network("squeezenet1_1", seed=4)
    assert all(torch.equal(v, state(again)[k]) for k, v in state(first).items())
    assert any(not torch.equal(v, state(other)[k]) for k, v in state(first).items())


@pytest.mark.parametrize(
    ("name", "size"), [("mobilenet_v2", 64), ("googlenet", 64), ("efficientnet_v2_l", 64)]
)
def test_normalisation_is_what_torchvisions_weights_ask_for(name: str, size: int) -> None:
    """With ``transform_input`` where there is one: ``get_model(weights=...)`` switches it on."""
    preset: Any = models.get_model_weights(name).DEFAULT.transforms(crop_size=size)
    assert isinstance(preset, ImageClassification)
    images = pixels(2, size)
    unit = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    theirs = (unit - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(
        3, 1, 1
    )
    if name == "googlenet":
        original = models.googlenet(aux_logits=False, init_weights=False, transform_input=True)
        theirs = original._transform_input(theirs)
    normalize = Normalize(CATALOG[name].preprocess)
    assert torch.allclose(normalize(images), theirs, atol=2e-6)
    assert torch.equal(normalize(images), normalize(images.to(torch.float32)))


def test_bgr_is_reversed_before_normalisation() -> None:
    normalize = Normalize(Preprocess((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "bgr"))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    assert torch.allclose(normalize(red).flatten(), torch.tensor([-0.1, -0.2, 0.7]))


@pytest.mark.parametrize(
    ("name", "size", "words"), [("vit_b_32", 192, "only size"), ("inception_v3", 64, "at least 75")]
)
def test_sizes_that_a_network_does_not_take_are_refused(name: str, size: int, words: str) -> None:
    with pytest.raises(UsageError, match=f"torch/{name}.*{words}"):
        network(name, size)


def test_a_broken_loader_is_the_plugins_fault() -> None:
    def load(path: Path | None) -> nn.Module:
        raise KeyError("nothing here")

    broken = dataclasses.replace(custom("shared", Shared), load=load)
    with pytest.raises(PluginError, match=r"torch/shared.*KeyError"):
        build(NetworkSpec("torch/shared", 8, None, "random:0"), broken, CPU)


def with_statistics(built: Network) -> Network:
    """Give batch normalisation something to do."""
    with torch.no_grad():
        for module in built.module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
    return built


@pytest.mark.parametrize(
    ("name", "size", "left"),
    [("mobilenet_v2", 48, 0), ("resnet18", 48, 0), ("densenet", 32, 8), ("regnet_y_400mf", 48, 0)],
)
def test_frozen_layers_run_with_fewer_operations_to_the_same_numbers(
    name: str, size: int, left: int
) -> None:
    built = with_statistics(network(name, size))
    built.eval()
    before = {name: value.clone() for name, value in built.module.state_dict().items()}
    end = len(built.info.layers)
    frozen = built.frozen(0, end)
    kinds = [type(module) for module in frozen.modules()]
    with torch.inference_mode():
        expected, found = built.segment(0, end)(pixels(3, size)), frozen(pixels(3, size))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert kinds.count(nn.BatchNorm2d) == left
    assert all(torch.equal(before[key], value) for key, value in built.module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size"), [("mobilenet_v2", 48), ("resnet18", 48), ("densenet", 32), ("googlenet", 80)]
)
def test_layers_that_train_with_fewer_operations_get_the_same_gradients(
    name: str, size: int
) -> None:
    built = with_statistics(network(name, size))
    built.freeze(built.info.cuts[len(built.info.cuts) // 3].index)
    end = len(built.info.layers)
    before = {name: value.clone() for name, value in built.module.state_dict().items()}

    def gradients(segment: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        built.module.zero_grad(set_to_none=True)
        output = segment(pixels(3, size))
        output.square().mean().backward()
        named = built.module.named_parameters()
        return output.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}

    torch.manual_seed(0)
    output, expected = gradients(built.segment(0, end))
    torch.manual_seed(0)
    faster = built.trainable(0, end)
    same, found = gradients(faster)
    assert (same - output).abs().max() < 1e-4 * output.abs().max()
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        off = (found[key] - gradient).abs().max()
        assert off < 1e-3 * gradient.abs().max() + 1e-7, key
    assert all(torch.equal(before[key], value) for key, value in built.module.state_dict().items())
    assert any(type(module) is ConvNorm for module in faster.modules())
