"""The parts of training: the head, the optimizers, the order and the feed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automl_tl.errors import UsageError
from automl_tl.training.order import shuffled
from automl_tl.types import Head, Source
from automl_tl_torch import optim
from automl_tl_torch.data import Feed, Indices
from automl_tl_torch.head import HeadModule, pool

CPU = torch.device("cpu")


def test_the_head_starts_from_documented_draws():
    head = HeadModule(Head(3, units=(5,)), (4, 2, 2), seed=11)
    random = np.random.default_rng([0x48454144, 11])
    pairs = [(head.layers[0], (4, 5)), (head.layers[3], (5, 3))]
    for layer, (inputs, outputs) in pairs:
        limit = (6 / (inputs + outputs)) ** 0.5
        expected = random.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
        np.testing.assert_array_equal(layer.weight.detach().numpy().T, expected)
        assert not layer.bias.any()


def test_the_head_has_dropout_before_the_classifier_or_after_each_hidden_layer():
    def kinds(head):
        return [type(layer).__name__ for layer in HeadModule(head, (4,), 0).layers]

    assert kinds(Head(3, dropout=0.5)) == ["Dropout", "Linear"]
    hidden = ["Linear", "ReLU", "Dropout"]
    assert kinds(Head(3, units=(8, 6), dropout=0.5)) == [*hidden, *hidden, "Linear"]


def test_pooling():
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert pool(x, "avg").tolist() == [[5.5, 17.5]]
    assert pool(x, "max").tolist() == [[11.0, 23.0]]
    assert pool(x, "flatten").shape == (1, 24)
    assert pool(x[:, :, 0, 0], "avg").shape == (1, 2)


def keras_step(name, weight, gradient, state, step, rate, decay):
    """Update rules as Keras has them, with L2 decay but for adamw."""
    gradient = gradient if name == "adamw" else gradient + decay * weight
    m, v = state
    if name == "sgd":
        m = 0.9 * m - rate * gradient
        return weight + m, (m, v)
    if name == "rmsprop":
        v = 0.9 * v + 0.1 * gradient**2
        return weight - rate * gradient / np.sqrt(v + 1e-7), (m, v)
    if name == "adagrad":
        v = (0.1 if step == 1 else v) + gradient**2
        return weight - rate * gradient / np.sqrt(v + 1e-7), (m, v)
    if name == "adamw":
        weight = weight * (1 - rate * decay)
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    scaled = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return weight - scaled * m / (np.sqrt(v) + 1e-7), (m, v)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_follow_keras(name):
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(3, 4)), random.normal(size=4)
    tensors = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in (weight, bias)]
    optimizer = optim.create(name, tensors, 0.01, weight_decay=0.1)
    states = [(0.0, 0.0), (0.0, 0.0)]
    for step in range(1, 5):
        values = []
        for index, (value, decay) in enumerate(((weight, 0.1), (bias, 0.0))):
            gradient = random.normal(size=value.shape)
            tensors[index].grad = torch.from_numpy(gradient)
            updated, states[index] = keras_step(
                name, value, gradient, states[index], step, 0.01, decay
            )
            values.append(updated)
        weight, bias = values
        optimizer.step()
        # Epsilon stands inside the root in some of Keras's rules and outside in PyTorch's.
        np.testing.assert_allclose(tensors[0].detach(), weight, rtol=1e-4)
        np.testing.assert_allclose(tensors[1].detach(), bias, rtol=1e-4)


def test_an_unknown_optimizer():
    with pytest.raises(UsageError, match=r"expected one of sgd, .*got 'lion'"):
        optim.create("lion", [torch.nn.Parameter(torch.ones(2))], 0.1, 0.0)


def test_weight_decay_spares_whatever_is_a_vector():
    shapes = [(4, 3), (4,), (4, 1, 1), (1, 1, 5), (4, 1, 3, 3)]
    tensors = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    decayed, spared = optim.create("adamw", tensors, 0.1, 0.2).param_groups
    assert [tuple(tensor.shape) for tensor in decayed["params"]] == [(4, 3), (4, 1, 3, 3)]
    assert len(spared["params"]) == 3
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.2, 0.0)


def test_the_order_is_a_shuffle_that_suits_a_disk():
    small = shuffled(1000, np.random.default_rng(0))
    assert sorted(small) == list(range(1000))
    assert np.abs(np.diff(small)).mean() > 250  # a third of 1000 for a perfect shuffle
    large = shuffled(20_001, np.random.default_rng(1))
    assert sorted(large) == list(range(20_001))
    window = large[:8192]
    assert len(np.unique(window // 64)) <= 129  # whole blocks
    assert window.max() - window.min() > 15_000  # from everywhere
    assert not np.array_equal(large, shuffled(20_001, np.random.default_rng(2)))


def test_a_feed_takes_rows_in_any_order(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.save(tmp_path / "a.npy", array)
    rows = np.array([7, 3, 11])
    feed = Feed(Source(tmp_path / "a.npy", 5, "avg", rows), Indices(CPU), {})
    assert len(feed) == 3
    np.testing.assert_array_equal(feed.take(np.array([2, 0])), array[[11, 7]])
