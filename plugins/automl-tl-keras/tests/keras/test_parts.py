"""The parts of training: the head, the optimizers, the loss and the feed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from automl_tl.errors import UsageError
from automl_tl.training.head import kernels
from automl_tl.types import Head, Source
from automl_tl_keras import head as heads
from automl_tl_keras import optim
from automl_tl_keras.feed import Feed
from automl_tl_keras.steps import Kept, Numbers, Part, Plan, create

STEPS = 4


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def take(stepper, parts, rate):
    """Take one step; returns the loss."""
    loss = float(stepper.backward(0, parts))
    stepper.update(rate)
    return loss


def update(name, weight, gradient, state, step, rate, decay):
    """The update rules of PyTorch, in float64, with L2 decay but for adamw."""
    gradient = gradient if name == "adamw" else gradient + decay * weight
    m, v = state
    if name == "sgd":
        m = 0.9 * m + gradient
        return weight - rate * m, (m, v)
    if name == "rmsprop":
        v = 0.9 * v + 0.1 * gradient**2
        return weight - rate * gradient / (np.sqrt(v) + 1e-7), (m, v)
    if name == "adagrad":
        v = (0.1 if step == 1 else v) + gradient**2
        return weight - rate * gradient / (np.sqrt(v) + 1e-7), (m, v)
    if name == "adamw":
        weight = weight * (1 - rate * decay)
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    corrected = m / (1 - 0.9**step), v / (1 - 0.999**step)
    return weight - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7), (m, v)


def reference(name, weights, x, labels, rates, decay, smoothing, class_weights):
    """Train a linear classifier in float64; returns the losses too."""
    weights = {key: value.astype(np.float64) for key, value in weights.items()}
    states = {key: (0.0, 0.0) for key in weights}
    losses = []
    for step, rate in enumerate(rates, start=1):
        logits = x @ weights["dense_0/kernel"] + weights["dense_0/bias"]
        targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
        scale = class_weights[labels][:, None]
        losses.append(-(targets * np.log(softmax(logits)) * scale).sum())
        error = (softmax(logits) - targets) * scale / len(x)
        gradients = {"dense_0/kernel": x.T @ error, "dense_0/bias": error.sum(0)}
        for key, gradient in gradients.items():
            spared = 0.0 if key.endswith("bias") else decay
            weights[key], states[key] = update(
                name, weights[key], gradient, states[key], step, rate, spared
            )
    return weights, losses


@pytest.mark.parametrize("sweep", [True, False])
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_follow_the_other_framework(name, sweep):
    random = np.random.default_rng(0)
    # Small features, so that gradients are as small as 1e-4 and epsilon's place matters.
    x = (random.normal(size=(12, 4)) * 10.0 ** -random.integers(0, 4, 4)).astype(np.float32)
    labels = random.integers(0, 3, 12)
    class_weights = np.array([0.5, 1.0, 2.0], np.float32)
    rates = np.array([1e-2, 2e-2, 1e-3, 5e-3])
    weights = heads.draw(Head(3), (4,), seed=0)
    expected, losses = reference(name, weights, x, labels, rates, 0.1, 0.2, class_weights)
    stepper = create()
    stepper.load(weights)
    stepper.begin(Plan(name, "avg"), Numbers(0.1, 1.0, 0.0, 0.2, class_weights))
    stepper.seed(0)
    placed, order = stepper.place(x), np.tile(np.arange(12), STEPS)
    if sweep:
        total = float(stepper.sweep(placed, stepper.place(labels), order, 12, rates))
    else:
        parts = [Part(x[:5], labels[:5]), Part(x[5:], labels[5:])]
        total = sum(take(stepper, parts, float(rate)) for rate in rates)
    assert total == pytest.approx(sum(losses), rel=1e-5)
    for key, value in stepper.values().items():
        moved = expected[key.removeprefix("head.")] - weights[key.removeprefix("head.")]
        found = value - weights[key.removeprefix("head.")]
        np.testing.assert_allclose(found, moved, rtol=1e-3, atol=1e-6)


def test_an_unknown_optimizer():
    with pytest.raises(UsageError, match=r"expected one of sgd, .*got 'lion'"):
        optim.starts("lion")


def test_weight_decay_spares_biases():
    weights = heads.draw(Head(3, units=(5,)), (4,), seed=0)
    weights = {name: value + 1 for name, value in weights.items()}
    stepper = create()
    stepper.load(weights)
    stepper.begin(Plan("adamw", "avg"), Numbers(0.5, 1.0, 0.0, 0.0, np.zeros(3, np.float32)))
    stepper.seed(0)
    take(stepper, [Part(np.ones((2, 4), np.float32), np.array([0, 1]))], 0.1)
    for name, value in stepper.values().items():
        kept = 0.95 if name.endswith("kernel") else 1.0
        np.testing.assert_allclose(value, kept * weights[name.removeprefix("head.")], rtol=1e-5)


def test_dropout_is_keyed_by_epoch_and_step_and_keeps_the_mean():
    width = 20_000
    kernel = np.stack([np.zeros(width), np.full(width, 1 / width)], axis=1)
    head = {"dense_0/kernel": kernel, "dense_0/bias": np.zeros(2)}
    stepper, part = create(), Part(np.ones((1, width), np.float32), np.array([1]))

    def means(seed):
        """Mean of the ones that dropout lets through, step by step, from the loss."""
        stepper.load({name: value.astype(np.float32) for name, value in head.items()})
        stepper.begin(Plan("sgd", "avg"), Numbers(0.0, 1.0, 0.25, 0.0, np.ones(2, np.float32)))
        stepper.seed(seed)
        losses = np.array([take(stepper, [part], 1e-12) for _ in range(3)])
        return -np.log(np.expm1(losses))

    first, other = means(1), means(2)
    np.testing.assert_allclose(np.concatenate([first, other]), 1, atol=0.02)
    assert len({*first, *other}) > 3  # masks of 20,000 may agree in their number of ones
    np.testing.assert_array_equal(means(1), first)


def test_the_head_starts_from_documented_draws():
    weights = heads.draw(Head(3, units=(5,)), (2, 2, 4), seed=11)
    random = np.random.default_rng([0x48454144, 11])
    for index, (inputs, outputs) in enumerate([(4, 5), (5, 3)]):
        limit = (6 / (inputs + outputs)) ** 0.5
        expected = random.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
        np.testing.assert_array_equal(weights[f"dense_{index}/kernel"], expected)
        assert not weights[f"dense_{index}/bias"].any()


def test_a_head_that_flattens_is_the_function_of_the_other_framework():
    head, random = Head(3, pooling="flatten"), np.random.default_rng(0)
    x = random.normal(size=(2, 3, 4, 5)).astype(np.float32)  # (N, H, W, C)
    channels_first = x.transpose(0, 3, 1, 2).reshape(2, -1)
    expected = channels_first @ kernels(head, 60, 7)[0]
    found = x.reshape(2, -1) @ heads.draw(head, (3, 4, 5), 7)["dense_0/kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
@pytest.mark.parametrize("units", [(), (6,), (6, 5)])
def test_the_layers_of_a_head_compute_what_was_trained(pooling, units):
    head, shape = Head(3, units=units, dropout=0.5, pooling=pooling, scale=0.6), (2, 3, 4)
    weights = heads.draw(head, shape, seed=1)
    assert {name: value.size for name, value in weights.items()} == heads.sizes(head, shape)
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    model = keras.Sequential(heads.layers(head, shape))
    model.build((None, *shape))
    for layer in model.layers:
        if layer.name.startswith("dense"):
            layer.kernel.assign(weights[f"{layer.name}/kernel"])
            layer.bias.assign(weights[f"{layer.name}/bias"])
    stepper = create()
    stepper.load(weights)
    stepper.begin(Plan("sgd", pooling), Numbers(0.0, 0.6, 0.5, 0.0, np.ones(3, np.float32)))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(stepper.logits(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
def test_a_head_on_maps_takes_steps_at_one_size_after_another(pooling):
    stepper, head = create(), Head(3, pooling=pooling)
    for shape in ((2, 3, 4), (3, 3, 4)):
        x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
        stepper.load(heads.draw(head, shape, seed=1))
        stepper.begin(Plan("sgd", pooling), Numbers(0.0, 1.0, 0.0, 0.0, np.ones(3, np.float32)))
        stepper.seed(0)
        labels = np.arange(5) % 3
        logits = stepper.logits(x)
        expected = -np.log(softmax(logits)[np.arange(5), labels]).sum()
        assert take(stepper, [Part(x, labels)], 0.1) == pytest.approx(expected, rel=1e-5)
        stepper.release()


def test_the_head_has_dropout_before_the_classifier_or_after_each_hidden_layer():
    def kinds(head):
        return [type(layer).__name__ for layer in heads.layers(head, (4,))]

    assert kinds(Head(3, dropout=0.5)) == ["Rescaling", "Dropout", "Dense"]
    hidden = ["Dense", "Dropout"] * 2
    assert kinds(Head(3, units=(8, 6), dropout=0.5)) == ["Rescaling", *hidden, "Dense"]


def test_a_bounded_number_is_kept():
    kept, made = Kept(2), []
    for key in "abacab":
        kept.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c", "b"]


def test_a_feed_takes_rows_in_any_order(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.save(tmp_path / "a.npy", array)
    rows = np.array([7, 3, 11])
    feed = Feed(Source(tmp_path / "a.npy", 5, "avg", rows), {})
    assert len(feed) == 3
    np.testing.assert_array_equal(feed.take(np.array([2, 0])), array[[11, 7]])
    np.testing.assert_array_equal(feed.whole(np.asarray), array[rows])
