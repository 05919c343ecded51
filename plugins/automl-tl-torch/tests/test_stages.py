"""Networks that come as stages, and modules that cannot be traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from automl_tl.errors import PluginError, WeightsError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec
from automl_tl_torch.network import Network, build
from automl_tl_torch.pretrained import open_classifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")
SIZE = 12


class Plain(nn.Module):
    """Three stages and a classifier; the last stage works in place on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.Dropout(0.3)
        )
        self.top = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(12, 16, 3, padding=1))
        for norm in (self.stem[1], self.body[1]):
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.top(self.body(self.stem(x))).mean((2, 3)))


def stages_of(network: nn.Module) -> dict[str, nn.Module]:
    return {name: child for name, child in network.named_children() if name != "head"}


def backbone(name: str, make: Callable[[], Any]) -> Backbone:
    def load(path: Path | None) -> Any:
        return make()

    return Backbone(name, "torch", load, input_size=SIZE, parameters=1, min_size=1)


def built(make: Callable[[], Any]) -> Network:
    spec = NetworkSpec("torch/toy", SIZE, None, "random:0")
    return build(spec, backbone("toy", make), CPU)


@pytest.fixture
def both(workshop: Any) -> tuple[Any, Any]:
    """The same network, traced and as stages."""
    traced = workshop(backbone("traced", Plain), SIZE)
    staged = workshop(backbone("staged", lambda: stages_of(Plain())), SIZE)
    return traced, staged


def test_every_stage_is_a_layer_with_a_cut_after_it(both: tuple[Any, Any]) -> None:
    traced, staged = both
    assert [(layer.name, layer.kind) for layer in staged.info.layers] == [
        ("stem", "Sequential"),
        ("body", "Sequential"),
        ("top", "Sequential"),
    ]
    assert staged.cuts == [0, 1, 2, 3]
    same = [cut for cut in traced.info.cuts if cut.index in (0, 3, 6, 8)]
    assert [(c.shape, c.flops) for c in staged.info.cuts] == [(c.shape, c.flops) for c in same]
    count = sum(layer.parameters for layer in traced.info.layers)
    assert sum(layer.parameters for layer in staged.info.layers) == count
    assert staged.info.features == traced.info.features == 16


def test_the_same_network_gives_the_same_numbers(both: tuple[Any, Any], tmp_path: Path) -> None:
    traced, staged = both
    features = [np.load(shop.stored(shop.end, "avg").path) for shop in both]
    np.testing.assert_allclose(features[1], features[0], rtol=1e-4, atol=1e-6)
    for cut, at in ((0, 0), (3, 3), (3, 6)):
        _, _, expected = traced.train(traced.tuning(cut, at))
        trainer, _, found = staged.train(staged.tuning(cut // 3, at // 3))
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    model, before = tmp_path / "model.safetensors", built(lambda: stages_of(Plain()))
    trainer.save(model, staged.facts(staged.job()).metadata())
    tensors = load_file(model)
    changed = {
        name
        for name, value in build(staged.spec, staged.backbone, CPU).module.state_dict().items()
        if not torch.equal(tensors[f"backbone.{name}"], value)
    }
    assert changed == {"top.1.weight", "top.1.bias"}
    assert {f"backbone.{name}" for name in before.module.state_dict()} < tensors.keys()
    loaded = staged.backend.load(model)
    expected = loaded.logits(staged.pixels)
    loaded.export("onnx", tmp_path / "model.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(None, {"pixels": staged.pixels})
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_a_stage_never_changes_what_it_is_given() -> None:
    network = built(lambda: stages_of(Plain()))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    value = network.segment(0, 2)(torch.from_numpy(pixels))
    before = value.clone()
    assert before.min() < 0
    network.segment(2, 3)(value)
    assert torch.equal(value, before)


class Both(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Mixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(0)


def shared() -> dict[str, nn.Module]:
    one = nn.Conv2d(3, 3, 1)
    return {"first": one, "second": one}


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (dict, "at least one stage, got an empty mapping"),
    "name": (lambda: {"a.b": nn.ReLU()}, "made of letters, digits, _ and -, got 'a.b'"),
    "reserved": (lambda: {"train": nn.ReLU()}, "another name for stage train"),
    "function": (lambda: {"a": torch.relu}, "stage a to be a Module of the framework, got builtin"),
    "twice": (shared, "every stage once, got one as first and as second"),
    "tuple": (lambda: {"a": nn.ReLU(), "b": Both(), "c": nn.ReLU()}, "stage b.*got tuple"),
    "rows": (lambda: {"a": Mixed(), "b": nn.ReLU()}, r"stage a.*got \(3, 12, 12\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_stages_that_are_wrong_get_one_sentence(case: str) -> None:
    make, words = WRONG[case]
    with pytest.raises(PluginError, match=f"^torch/toy: expected.*{words}") as caught:
        _ = built(make).info
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith("report it to the backbone's author.")


def test_stages_have_no_original_classifier(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="torch/toy: expected a network with its original"):
        open_classifier(backbone("toy", lambda: stages_of(Plain())), tmp_path / "any", CPU)


class Shy(nn.Module):
    """Asks how large its input is, which tracing does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.mix = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mix(x * self.scale)
        return x if len(x.shape) == 4 and int(x.shape[2]) > 1 else x * 2


class Untraceable(Plain):
    def __init__(self, shy: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem.append(shy())


def test_a_module_that_cannot_be_traced_is_one_layer() -> None:
    network = built(lambda: Untraceable(Shy))
    layers = [(layer.name, layer.kind, layer.parameters) for layer in network.info.layers]
    assert layers[2:5] == [
        ("stem.2", "ReLU", 0),
        ("stem.3", "Shy", 1 + 8 * 8 + 8),
        ("body.0", "Conv2d", 12 * 8 * 9 + 12),
    ]
    assert [cut.index for cut in network.info.cuts] == list(range(len(layers) + 1))
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    whole = network.segment(0, len(layers))(pixels)
    value = network.segment(3, len(layers))(network.segment(0, 3)(pixels))
    assert torch.allclose(value, whole, atol=1e-6)
    network.freeze(3)
    assert network.module.get_parameter("stem.3.scale").requires_grad
    network.freeze(4)
    assert not network.module.get_parameter("stem.3.scale").requires_grad


class Masked(Plain):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x if mask is None else x * mask)


def test_arguments_after_the_images_have_their_defaults() -> None:
    network, plain = built(Masked), built(Plain)
    assert network.info == plain.info
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    end = len(plain.info.layers)
    assert torch.equal(network.segment(0, end)(pixels), plain.segment(0, end)(pixels))


class Biased(Plain):
    """Adds a parameter of five axes."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1, 1, 12, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x)) + self.bias.squeeze(0)
        return self.head(self.top(x).mean((2, 3)))


def test_parameters_may_have_any_number_of_axes() -> None:
    network = built(Biased)
    assert network.module.get_parameter("bias").ndim == 5
    assert not network.module.get_parameter("stem.0.weight").is_contiguous()
    assert len(network.info.cuts) > 5


class Identities(Plain):
    """Works in place on what an identity hands through."""

    def __init__(self) -> None:
        super().__init__()
        self.body.append(nn.Identity())


def test_what_an_identity_hands_through_is_not_changed_either() -> None:
    network = built(Identities)
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    names = [layer.name for layer in network.info.layers]
    cut = names.index("body.1") + 1
    value = network.segment(0, cut)(pixels)
    before = value.clone()
    network.segment(cut, len(names))(value)
    assert torch.equal(value, before)
