"""What trains and what only runs computes the same as what is exported, in whatever is folded."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from automl_tl.errors import PluginError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec
from automl_tl_torch.fold import LeanReLU6
from automl_tl_torch.network import Network, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 8


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x + super().forward(x)


class Opaque(nn.Sequential):
    """Cannot be traced, and so is one layer."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return 3 * x + super().forward(x)


class ResidualActivation(Conv2dNormActivation):
    """One layer too, as its base is."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x + super().forward(x)


class Shifted(nn.ReLU6):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1)


class Backwards(nn.Sequential):
    """Runs its modules from the last to the first."""

    def __iter__(self) -> Any:
        return reversed(list(self._modules.values()))


class Tied(nn.Module):
    """Uses the weight of a convolution before a normalisation twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(6, 6, 3, padding=1), norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x)) + F.conv2d(x, self.convolution.weight, padding=1)


class TiedRow(nn.Module):
    """Uses the weight inside of a row that is one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.row = row()

    def forward(self, x: Tensor) -> Tensor:
        return self.row(x) + F.conv2d(x, self.row[0].weight, padding=1)


def norm() -> nn.BatchNorm2d:
    found = nn.BatchNorm2d(6)
    for tensor in (found.weight, found.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (found.bias, found.running_mean):
        nn.init.uniform_(tensor, -0.5, 0.5)
    return found


def convolution() -> nn.Conv2d:
    return nn.Conv2d(6, 6, 3, padding=1)


def row(
    kind: type[Conv2dNormActivation] = Conv2dNormActivation, activation: type[nn.Module] = nn.ReLU
) -> Conv2dNormActivation:
    return kind(6, 6, 3, norm_layer=lambda _: norm(), activation_layer=activation)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return module


def prepared(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda _module, inputs: (2 * inputs[0],))
    return module


def replaced(module: nn.Module) -> nn.Module:
    def doubled(self: nn.Module, x: Tensor) -> Tensor:
        return 2 * type(self).forward(self, x)

    module.forward = MethodType(doubled, module)  # type: ignore[method-assign]
    return module


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(convolution(), norm(), nn.ReLU()),
    "opaque": lambda: Opaque(convolution(), norm(), nn.ReLU()),
    "row": lambda: row(ResidualActivation),
    "backwards": lambda: Backwards(norm(), convolution()),
    "hooked row": lambda: hooked(row()),
    "prepared row": lambda: prepared(row()),
    "replaced row": lambda: replaced(row()),
    "hooked convolution": lambda: nn.Sequential(hooked(convolution()), norm()),
    "prepared convolution": lambda: nn.Sequential(prepared(convolution()), norm()),
    "replaced convolution": lambda: nn.Sequential(replaced(convolution()), norm()),
    "hooked norm": lambda: nn.Sequential(convolution(), hooked(norm())),
    "prepared norm": lambda: nn.Sequential(convolution(), prepared(norm())),
    "weight_norm": lambda: nn.Sequential(nn.utils.weight_norm(convolution()), norm()),
    "spectral_norm": lambda: nn.Sequential(nn.utils.spectral_norm(convolution()), norm()),
    "parametrized": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(convolution()), norm()
    ),
    "tied": Tied,
    "tied row": TiedRow,
    "plain": lambda: nn.Sequential(convolution(), norm(), nn.ReLU()),
    "plain row": row,
    "plain ReLU6": lambda: nn.Sequential(convolution(), norm(), nn.ReLU6(inplace=True)),
    "ReLU6 in a row": lambda: row(activation=nn.ReLU6),
    "hooked ReLU6": lambda: nn.Sequential(convolution(), norm(), hooked(nn.ReLU6(inplace=True))),
    "ReLU6 of a kind": lambda: nn.Sequential(convolution(), norm(), Shifted(inplace=True)),
}


class Net(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 6, 3), block, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def built(make: Callable[[], Any]) -> Network:
    def load(path: Path | None) -> Any:
        return make()

    toy = Backbone("toy", "torch", load, input_size=SIZE, parameters=1, min_size=1)
    return build(NetworkSpec("torch/toy", SIZE, None, "random:0"), toy, torch.device("cpu"))


def traced(block: nn.Module) -> Any:
    return Net(block)


def staged(block: nn.Module) -> Any:
    return {"stem": nn.Conv2d(3, 6, 3), "block": block}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("network", [traced, staged])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_way_to_run_a_network_is_the_same(
    name: str, network: Callable[[nn.Module], Any]
) -> None:
    images = torch.randint(0, 256, (3, SIZE, SIZE, 3), generator=torch.manual_seed(0)).byte()
    made = built(lambda: network(BLOCKS[name]()))
    end = len(made.info.layers)
    made.freeze(0)
    made.eval()  # spectral normalisation moves a buffer while it trains

    def trained(segment: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        made.module.zero_grad(set_to_none=True)
        output = segment(images)
        output.square().sum().backward()
        named = made.module.named_parameters()
        return output.detach(), {key: value.grad.clone() for key, value in named}

    output, gradients = trained(made.segment(0, end))
    same, found = trained(made.trainable(0, end))
    torch.testing.assert_close(same, output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, gradients, rtol=1e-3, atol=1e-2)
    made.freeze(end)
    with torch.inference_mode():
        expected = made.segment(0, end)(images)
        frozen = made.copy().frozen(0, end)(images)
    torch.testing.assert_close(frozen, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [hooked, prepared, replaced])
def test_what_tracing_would_pass_over_is_refused(change: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(PluginError, match=r"hooks or a forward of its own.*mapping of stages"):
        built(lambda: change(Net(convolution())))


@pytest.mark.parametrize("network", [traced, staged])
def test_relu6_keeps_its_result_alone_and_has_the_same_gradients(
    network: Callable[[nn.Module], Any],
) -> None:
    made = built(lambda: network(nn.Sequential(convolution(), norm(), nn.ReLU6(inplace=True))))
    made.freeze(0)
    end = len(made.info.layers)
    lean = made.trainable(0, end)
    assert [module for module in lean.modules() if type(module) is LeanReLU6]
    assert not [m for m in made.segment(0, end).modules() if type(m) is LeanReLU6]
    values = torch.tensor([-7.0, -1e-9, -0.0, 0.0, 1e-9, 5.999, 6.0, 6.001, float("nan")])
    found, kept = [], []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    for relu in (nn.ReLU6(inplace=True), LeanReLU6(inplace=True)):
        x = values.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = relu(x * 1)
        output.sum().backward()
        found.append((output.detach(), x.grad))
        assert (output.data_ptr() in kept) is isinstance(relu, LeanReLU6)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0, equal_nan=True)
