from __future__ import annotations

import dataclasses
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from automl_tl.errors import FinishTraining, PruneTraining, TrialError
from automl_tl.schedules import learning_rate
from automl_tl.training.split import SplitTrainer
from automl_tl.types import Head, PhaseSpec
from automl_tl_keras import optim
from automl_tl_keras import steps_tensorflow_graph as graph
from automl_tl_keras.network import Network
from automl_tl_keras.steps_tensorflow import TensorFlowStepper
from automl_tl_keras.train import KerasTrainer


def never():
    raise AssertionError("the backbone was built")


def numbers(tensors):
    return {name: np.array(keras.ops.convert_to_numpy(var)) for name, var in tensors.items()}


def saved(shop, trainer, job, folder):
    trainer.save(folder / "model.safetensors", shop.facts(job).metadata())
    return load_file(folder / "model.safetensors")


def test_a_frozen_trial_never_builds_the_backbone(workshop, recorder, tmp_path):
    shop = workshop()
    trainer = KerasTrainer(shop.job(), never, TensorFlowStepper(), "cpu")
    trainer.run(recorder())
    assert trainer.facts().total_parameters > shop.info.features * 16
    with pytest.raises(AssertionError, match="was built"):
        trainer.save(tmp_path / "model.safetensors", {})


def test_the_head_learns(workshop):
    shop = workshop(images=60)
    job = shop.job(warmup=PhaseSpec(25, 1e-2), label_smoothing=0.0, class_weights=None)
    _, _, seen = shop.train(job)
    found = seen.reports[-1].validation_logits.argmax(1)
    assert (found == shop.labels[shop.validation_rows]).mean() >= 0.9
    assert seen.reports[-1].train_loss < 0.5 * seen.reports[0].train_loss


def test_reports(workshop):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, fine_tuning=PhaseSpec(3, 1e-3))
    _, facts, seen = shop.train(job)
    assert [report.phase for report in seen.reports] == ["warm-up"] * 2 + ["fine-tuning"] * 3
    assert [report.epoch for report in seen.reports] == list(range(5))
    assert {report.epochs for report in seen.reports} == {5}
    logits = seen.reports[0].validation_logits
    assert (logits.dtype, logits.shape) == (np.float32, (len(shop.validation_rows), 3))
    steps = -(-len(shop.train_rows) // 8)
    rates = [learning_rate("cosine", 1e-3, steps * (k + 1) - 1, 3 * steps) for k in range(3)]
    assert [report.learning_rate for report in seen.reports[2:]] == pytest.approx(rates)
    tuning = [entry for entry in seen.steps if entry[0] == "fine-tuning"][: steps + 1]
    assert [done for _, done, _ in tuning[:2]] == [8, 16]
    assert tuning[-1] == ("fine-tuning", shop.images, shop.images)
    assert (facts.device, facts.precision, facts.notes) == ("cpu", "float32", ())


def test_phases_that_are_pruned_never_need_the_later_sources(workshop, recorder):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    seen = recorder(PruneTraining("hopeless"), epochs=2)
    with pytest.raises(PruneTraining):
        shop.train(job, seen)
    assert {source.path for source in seen.needed} == {job.head_train.path}


@pytest.mark.parametrize("share", [0.0, 0.4, 0.75])
def test_what_is_frozen_stays_and_what_is_not_moves(workshop, share, tmp_path):
    shop = workshop()
    fine_tune_at = round(share * shop.end)
    cut = max(index for index in shop.cuts if index <= fine_tune_at)
    network = shop.backend._build(shop.spec)
    before = numbers(network.tensors())
    job = shop.tuning(cut, fine_tune_at)
    trainer, facts, _ = shop.train(job)
    after = saved(shop, trainer, job, tmp_path)
    trained = network.trainable(fine_tune_at)
    assert trained
    for name, value in before.items():
        same = np.array_equal(after[f"backbone.{name}"], value)
        assert same == (name not in trained), name
    head = [value for name, value in after.items() if name.startswith("head.")]
    tuned = [before[name] for name in trained]
    assert facts.trainable_variables == len(head + tuned)
    assert facts.trainable_parameters == sum(value.size for value in head + tuned)
    layers = sum(layer.parameters for layer in shop.info.layers)
    assert facts.total_parameters == layers + sum(value.size for value in head)
    for name, value in numbers(shop.backend._build(shop.spec).tensors()).items():
        assert np.array_equal(value, before[name]), name


def test_a_last_batch_of_one(workshop):
    shop = workshop(images=12)
    assert len(shop.train_rows) % 4 == 1
    _, _, seen = shop.train(shop.tuning(0, 0, batch_size=4))
    assert len(seen.reports) == 4
    _, _, seen = shop.train(shop.job(batch_size=1000))
    assert len(seen.reports) == 2


def test_images_that_are_weighted_and_smoothed(workshop, tmp_path):
    shop = workshop()
    job = shop.job(head=Head(3), warmup=PhaseSpec(1, 0.0), schedule="constant", weight_decay=0.0)
    trainer, _, seen = shop.train(job)
    features = np.load(job.head_train.path)[shop.train_rows].astype(np.float64)
    logits = features @ saved(shop, trainer, job, tmp_path)["head.dense_0/kernel"]
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(3)[job.train_labels] * 0.9 + 0.1 / 3
    weights = job.class_weights[job.train_labels]
    losses = -(targets * log_probabilities).sum(1) * weights
    assert seen.reports[0].train_loss == pytest.approx(losses.mean(), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_trial(workshop, recorder):
    shop = workshop()
    job = shop.job(optimizer="sgd", schedule="constant", warmup=PhaseSpec(5, 1e30))
    seen = recorder()
    with pytest.raises(
        TrialError, match=r"loss became NaN or infinite in epoch 1 of 5 of the warm"
    ):
        shop.train(job, seen)
    assert not seen.reports


class OutOfMemory:
    """Lets steps on a network, or its inference, fail above a batch size, as a GPU would."""

    def __init__(self, monkeypatch, method, limit):
        original = getattr(TensorFlowStepper, method)
        self.calls = []

        def fail(stepper, *arguments):
            images = len(arguments[1].labels if method == "_gradients" else arguments[-1])
            self.calls.append(images)
            if images > limit:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating ...")
            return original(stepper, *arguments)

        monkeypatch.setattr(TensorFlowStepper, method, fail)


def test_out_of_memory_halves_the_batch_and_keeps_the_numbers(workshop, monkeypatch):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, head=Head(3), optimizer="sgd")
    _, plain_facts, expected = shop.train(job)
    assert plain_facts.notes == ()
    memory = OutOfMemory(monkeypatch, "_gradients", limit=3)
    _, facts, found = shop.train(job)
    assert facts.notes == ("out of memory: batch size 8 became 4 x 2",)
    assert len([images for images in memory.calls if images > 3]) == 2
    scale = np.abs(expected.logits).max()
    assert np.abs(found.logits - expected.logits).max() <= 1e-5 * scale
    losses = [report.train_loss for report in found.reports]
    assert losses == pytest.approx([report.train_loss for report in expected.reports], rel=1e-5)


def test_out_of_memory_in_validation(workshop, monkeypatch):
    shop = workshop(images=60)
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    _, _, expected = shop.train(job)
    OutOfMemory(monkeypatch, "forward", limit=9)
    _, facts, found = shop.train(job)
    assert facts.notes == ("validation: out of memory: batch size 64 became 8 x 8",)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_out_of_memory_with_one_image(workshop, monkeypatch):
    shop = workshop()
    OutOfMemory(monkeypatch, "_gradients", limit=0)
    with pytest.raises(TrialError, match=r"even with one image .*choose a smaller"):
        shop.train(shop.tuning(0, 0))


def test_activations_from_above_the_layers_to_train(workshop):
    shop = workshop()
    with pytest.raises(TrialError, match="a mistake in the plan"):
        shop.train(shop.tuning(shop.cut(0.8), shop.cut(0.4)))


@pytest.mark.parametrize(
    ("limits", "reported"),
    [({"epochs": 1}, 1), ({"epochs": 3}, 3), ({"steps": 7}, 2), ({"steps": 12}, 3)],
)
def test_the_file_holds_the_last_reported_epoch(workshop, recorder, tmp_path, limits, reported):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    seen = recorder(FinishTraining("time is up"), **limits)
    trainer = shop.backend.trainer(job)
    trainer._call = 1000  # the warm-up's epochs in one call each, whatever the machine's speed
    with pytest.raises(FinishTraining):
        trainer.run(seen)
    assert len(seen.reports) == reported
    path = tmp_path / "model.safetensors"
    trainer.save(path, shop.facts(job).metadata())
    logits = shop.backend.load(path).logits(shop.pixels[shop.validation_rows])
    np.testing.assert_allclose(logits, seen.reports[-1].validation_logits, rtol=1e-4, atol=1e-5)


def test_a_trial_that_stops_half_way_leaves_the_next_one_alone(workshop, recorder):
    shop = workshop()
    cut = shop.cut(0.4)
    job = shop.tuning(cut, cut)
    before = numbers(shop.backend._build(shop.spec).tensors())
    _, _, expected = shop.train(job)
    with pytest.raises(PruneTraining):
        shop.train(job, recorder(PruneTraining("hopeless"), steps=len(expected.steps) - 2))
    for name, value in numbers(shop.backend._build(shop.spec).tensors()).items():
        assert np.array_equal(value, before[name]), name
    _, _, again = shop.train(job)
    assert np.array_equal(again.logits, expected.logits)


def test_a_trial_pruned_before_its_first_epoch_has_no_model(workshop, recorder, tmp_path):
    shop = workshop()
    trainer = shop.backend.trainer(shop.job())
    with pytest.raises(PruneTraining):
        trainer.run(recorder(PruneTraining("hopeless"), steps=1))
    assert trainer.facts().trainable_variables == 4
    with pytest.raises(TrialError, match="before its first epoch"):
        trainer.save(tmp_path / "model.safetensors", {})
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_next_trial_compiles_nothing(workshop, monkeypatch):
    shop = workshop()
    cut = shop.cut(0.6)
    shop.train(shop.tuning(cut, cut))
    compiled = []
    original = graph._compile
    monkeypatch.setattr(graph, "_compile", lambda *a: compiled.append(a) or original(*a))
    other = {
        "seed": 8,
        "head": Head(3, units=(24,), dropout=0.1),
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "class_weights": None,
        "batch_size": 7,
        "fine_tuning": PhaseSpec(3, 1e-4),
    }
    shop.train(shop.tuning(cut, cut, **other))
    assert not compiled
    shop.train(shop.tuning(cut, cut, optimizer="rmsprop"))
    assert len(compiled) == 2  # the head's steps and the update of all that trains


def test_functions_are_forgotten_with_their_network(workshop):
    shop = workshop()
    cut = shop.cut(0.6)
    shop.train(shop.tuning(cut, cut))
    stepper = shop.backend._stepper
    assert any(isinstance(network, Network) for network in stepper._networks)
    shop.backend._build(dataclasses.replace(shop.spec, seed=99))
    assert not list(stepper._networks)


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
def test_a_head_trains_to_the_same_numbers_in_numpy(workshop, recorder, optimizer):
    shop = workshop()
    cut = shop.cut(0.6)
    changes = {"warmup": PhaseSpec(3, 3e-3), "fine_tuning": PhaseSpec(1, 1e-4)}
    job = shop.tuning(cut, cut, head=Head(3, (16,)), optimizer=optimizer, **changes)
    _, facts, expected = shop.train(job)
    found = recorder()
    assert SplitTrainer(job, shop.backend).run(found) == facts
    assert [r.phase for r in found.reports] == [r.phase for r in expected.reports]
    assert np.abs(found.logits - expected.logits).max() <= 1e-4 * np.abs(expected.logits).max()


def test_a_head_that_was_trained_elsewhere_is_saved(workshop, recorder, tmp_path):
    shop = workshop()
    job = shop.job()
    found, split = recorder(), SplitTrainer(job, shop.backend)
    split.run(found)
    path = tmp_path / "model.safetensors"
    split.save(path, shop.facts(job).metadata())
    logits = shop.backend.load(path).logits(shop.pixels[shop.validation_rows])
    np.testing.assert_allclose(logits, found.reports[-1].validation_logits, rtol=1e-4, atol=1e-5)


def test_layers_that_train_in_bfloat16_stay_close(workshop, recorder):
    """As on GPUs that have it; here on the CPU, which computes it slowly but truly."""
    shop = workshop()
    cut = shop.cut(0.4)
    job = shop.tuning(cut, cut, head=Head(3), fine_tuning=PhaseSpec(2, 1e-4))
    _, _, expected = shop.train(job)
    stepper = TensorFlowStepper()
    stepper.precision = "bfloat16"
    network = shop.backend._build(shop.spec)
    seen = recorder()
    facts = KerasTrainer(job, lambda: network, stepper, "cpu").run(seen)
    assert facts.precision == "bfloat16"
    difference = np.abs(seen.logits - expected.logits).max()
    assert 0 < difference < 0.02 * np.abs(expected.logits).max()
    assert {layer.compute_dtype for layer in network.model._flatten_layers()} == {"float32"}
    assert {var.dtype for var in network.tensors().values()} == {"float32"}


def test_training_leaves_the_callers_random_numbers_alone(workshop):
    shop = workshop()
    keras.utils.set_random_seed(5)
    job = dataclasses.replace(shop.job(), seed=9)
    expected = random.random(), np.random.random(), float(keras.random.uniform(()))
    keras.utils.set_random_seed(5)
    shop.train(job)
    assert (random.random(), np.random.random(), float(keras.random.uniform(()))) == expected
