"""Steps that are replayed, by pretended graphs; ``test_cuda`` has real ones."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from automl_tl_torch import capture
from automl_tl_torch.capture import BEFORE, Replays, recordable


class PretendedGraph:
    """Does again what was done while it recorded, into the same places."""

    def __init__(self):
        self.again = lambda: None

    def pool(self):
        return 1

    def replay(self):
        self.again()


class Linear:
    """A loss of two parameters; counts how often Python computes it."""

    def __init__(self):
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.calls = 0
        self.broken = False

    def compute(self, x, labels):
        self.calls += 1
        if self.broken and self.calls > BEFORE:
            raise RuntimeError("operation not permitted when stream is capturing")
        loss = ((x @ self.weight - labels) ** 2).sum()
        loss.backward()
        return loss.detach()


@pytest.fixture
def linear(monkeypatch):
    model = Linear()

    @contextmanager
    def recording(graph, pool, capture_error_mode):
        yield
        gradient = model.weight.grad

        def again():
            replay = graph.owner
            with torch.enable_grad():
                weight = model.weight.detach().requires_grad_()
                loss = ((replay._x @ weight - replay._labels) ** 2).sum()
                (found,) = torch.autograd.grad(loss, weight)
            gradient.copy_(found)
            replay._loss.copy_(loss.detach())

        graph.again = again

    class Owned(capture._Replay):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.graph.owner = self

    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendedGraph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(capture, "_Replay", Owned)
    return model


def batches(sizes):
    random = np.random.default_rng(0)
    for size in sizes:
        x = torch.from_numpy(random.random((size, 2), np.float32))
        yield x, torch.from_numpy(random.integers(0, 3, size))


def trained(model, replays, sizes):
    found = []
    for x, labels in batches(sizes):
        loss = float(replays(model.compute, x, labels))
        found.append((loss, model.weight.grad.clone()))
        with torch.no_grad():
            model.weight -= 0.01 * model.weight.grad
    return found


def test_replayed_steps_are_those_that_were_recorded(linear):
    sizes = (4, 4, 4, 2, 4, 2, 4, 2, 4, 2)
    found = trained(linear, Replays([linear.weight], enabled=True), sizes)
    assert linear.calls == 2 * (BEFORE + 1)  # once more for each of both sizes, to record it
    plain = Linear()
    expected = trained(plain, Replays([plain.weight], enabled=False), sizes)
    assert plain.calls == len(sizes)
    for (loss, gradient), (loss_before, gradient_before) in zip(found, expected, strict=True):
        assert loss == pytest.approx(loss_before, rel=1e-5)
        assert torch.allclose(gradient, gradient_before)


def test_what_cannot_be_recorded_runs_as_it_is(linear):
    linear.broken = True
    replays = Replays([linear.weight], enabled=True)
    x, labels = next(batches([4]))
    for _ in range(BEFORE):
        replays(linear.compute, x, labels)
    before = linear.weight.grad.clone()
    with pytest.raises(RuntimeError):  # once to record, and then for itself
        replays(linear.compute, x, labels)
    assert linear.calls == BEFORE + 2
    linear.broken = False
    replays(linear.compute, x, labels)
    assert torch.equal(linear.weight.grad, before)
    assert linear.calls == BEFORE + 3


class Moody(nn.Module):
    def forward(self, x):
        return x


def test_layers_of_others_are_not_recorded(workshop):
    shop = workshop()
    assert recordable(shop.backend._build(shop.spec).trainable(0, shop.end))
    assert not recordable(nn.Sequential(nn.Linear(2, 2), Moody()))
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    assert recordable(graph)
    (node,) = [node for node in graph.graph.nodes if node.op == "call_module"]
    with graph.graph.inserting_after(node):
        graph.graph.call_function(np.tanh, (node,))
    graph.recompile()
    assert not recordable(graph)


class MoodyLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_layers_that_others_changed_are_not_recorded():
    def watch(layer, inputs, output):
        return output

    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(watch)
    assert not recordable(nn.Sequential(hooked))
    parametrized = nn.utils.parametrizations.weight_norm
    assert recordable(parametrized(nn.Linear(2, 2)))
    assert not recordable(parametrized(MoodyLinear(2, 2)))
