"""A backbone in PyTorch that is right, and some that are wrong, each in one way."""

from __future__ import annotations

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone

PARAMETERS = 1514


def _net(forward=None):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.last = nn.Conv2d(8, 8, 3, 2, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Linear(8, 10)

        def forward(self, x):
            x = self.stem(x)
            x = self.block(x) + x
            x = self.last(forward(x) if forward else x)
            return self.classifier(torch.flatten(self.pool(x), 1))

    return Net()


def right(weights):
    return _net()


def nan(weights):
    net = _net()
    net.last.bias.data[3] = float("nan")
    return net


def dropout(weights):
    from torch.nn import functional

    return _net(lambda x: functional.dropout(x, 0.1, training=True))


def unseeded(weights):
    import torch

    net = _net()
    drawn = torch.randn(8, generator=torch.Generator().manual_seed(torch.seed()))
    net.last.bias.data += drawn
    return net


def branches(weights):
    return _net(lambda x: x if x.mean() > 0 else -x)


def shared(weights):
    import torch

    return _net(lambda x: x + torch.zeros_like(x) * x.mean(0, keepdim=True) + x.mean(0))


def tied(weights):
    from torch import nn

    norm = nn.BatchNorm2d(8)
    stages = {"stem": nn.Conv2d(3, 8, 3, 2, 1)}
    for name in ("first", "second"):
        stages[name] = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), norm, nn.ReLU())
    return stages


class Plugin:
    """A plugin with one backbone."""

    def __init__(self, load, **changes):
        self.backbone = Backbone(
            "small",
            "torch",
            **({"load": load, "input_size": 32, "parameters": PARAMETERS} | changes),
        )

    @hookimpl
    def automl_tl_backbones(self):
        return [self.backbone]


right_net = Plugin(right)
tied_net = Plugin(tied, parameters=1408)
nan_net = Plugin(nan)
dropout_net = Plugin(dropout)
unseeded_net = Plugin(unseeded)
branching_net = Plugin(branches)
batch_net = Plugin(shared)
few_parameters_net = Plugin(right, parameters=700)
