from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from automl_tl.errors import FinishTraining, PruneTraining, TrialError
from automl_tl.schedules import learning_rate
from automl_tl.types import Head, PhaseSpec
from automl_tl_torch.train import TorchTrainer

CPU = torch.device("cpu")


def never():
    raise AssertionError("the backbone was built")


def test_a_frozen_trial_never_builds_the_backbone(workshop, recorder, tmp_path):
    shop = workshop()
    trainer = TorchTrainer(shop.job(), never, CPU)
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
    _, _, seen = shop.train(job)
    assert [report.phase for report in seen.reports] == ["warm-up"] * 2 + ["fine-tuning"] * 3
    assert [report.epoch for report in seen.reports] == list(range(5))
    assert {report.epochs for report in seen.reports} == {5}
    logits = seen.reports[0].validation_logits
    assert (logits.dtype, logits.shape) == (np.float32, (len(shop.validation_rows), 3))
    steps = -(-len(shop.train_rows) // 8)
    rates = [learning_rate("cosine", 1e-3, steps * (k + 1) - 1, 3 * steps) for k in range(3)]
    assert [report.learning_rate for report in seen.reports[2:]] == pytest.approx(rates)
    first = [entry for entry in seen.steps if entry[0] == "warm-up"][: steps + 1]
    assert [done for _, done, _ in first[:2]] == [8, 16]
    assert first[-1] == ("warm-up", shop.images, shop.images)


def test_each_phase_may_have_an_optimizer_of_its_own(workshop):
    shop = workshop()
    cut = shop.cut(0.6)
    found = {}
    for first, second in (("adam", "sgd"), ("adam", None), ("adam", "adam"), ("sgd", "sgd")):
        job = shop.tuning(cut, cut, optimizer=first, fine_tune_optimizer=second)
        _, _, seen = shop.train(job)
        found[first, second] = seen.logits
    assert np.array_equal(found["adam", None], found["adam", "adam"])
    assert np.array_equal(found["adam", "sgd"][:2], found["adam", None][:2])
    assert not np.allclose(found["adam", "sgd"][2], found["adam", None][2])
    assert not np.allclose(found["adam", "sgd"][:2], found["sgd", "sgd"][:2])


class Promises:
    """Hides arrays until they are needed."""

    def __init__(self, recorder, *sources):
        self.seen = recorder()
        self.epoch, self.step = self.seen.epoch, self.seen.step
        for source in sources:
            source.path.rename(source.path.with_suffix(".hidden"))

    def need(self, source):
        self.seen.need(source)
        hidden = source.path.with_suffix(".hidden")
        if hidden.exists():
            hidden.rename(source.path)


def test_sources_are_needed_only_when_their_epoch_begins(workshop, recorder):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    _, _, expected = shop.train(job)
    late = Promises(recorder, job.head_train, job.tune_train[0])
    shop.backend.trainer(job).run(late)
    assert np.array_equal(late.seen.logits, expected.logits)
    late = Promises(recorder, job.head_train, job.tune_train[0])
    late.seen.stop, late.seen.last_epoch = PruneTraining("hopeless"), 2
    with pytest.raises(PruneTraining):
        shop.backend.trainer(job).run(late)
    assert not job.tune_train[0].path.exists()


@pytest.mark.parametrize("share", [0.0, 0.4, 0.75])
def test_what_is_frozen_stays_and_what_is_not_moves(workshop, share):
    shop = workshop()
    fine_tune_at = round(share * shop.end)
    cut = max(index for index in shop.cuts if index <= fine_tune_at)
    before = shop.backend._build(shop.spec).copy()
    trainer, facts, _ = shop.train(shop.tuning(cut, fine_tune_at))
    after = trainer._network
    after.freeze(fine_tune_at)
    trained = {name for name, p in after.module.named_parameters() if p.requires_grad}
    assert trained
    for name, value in after.module.state_dict().items():
        same = torch.equal(value, before.module.state_dict()[name])
        assert same == (name not in trained), name
    head = list(trainer.head.parameters())
    tensors = [p for name, p in after.module.named_parameters() if name in trained] + head
    assert facts.trainable_variables == len(tensors)
    assert facts.trainable_parameters == sum(p.numel() for p in tensors)
    assert facts.total_parameters == sum(p.numel() for p in [*after.module.parameters(), *head])
    pristine = shop.backend._build(shop.spec).module.state_dict()
    for name, value in before.module.state_dict().items():
        assert torch.equal(value, pristine[name])


def test_a_last_batch_of_one(workshop):
    shop = workshop(images=12)
    assert len(shop.train_rows) % 4 == 1
    _, _, seen = shop.train(shop.tuning(0, 0, batch_size=4))
    assert len(seen.reports) == 4
    _, _, seen = shop.train(shop.job(batch_size=1000))
    assert len(seen.reports) == 2


def test_images_that_are_weighted_and_smoothed(workshop):
    shop = workshop()
    job = shop.job(head=Head(3), warmup=PhaseSpec(1, 0.0), schedule="constant", weight_decay=0.0)
    trainer, _, seen = shop.train(job)
    features = np.load(job.head_train.path)[shop.train_rows].astype(np.float64)
    layer = trainer.head.layers[-1]
    logits = features @ layer.weight.detach().double().numpy().T
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(3)[job.train_labels] * 0.9 + 0.1 / 3
    weights = job.class_weights[job.train_labels]
    losses = -(targets * log_probabilities).sum(1) * weights
    assert seen.reports[0].train_loss == pytest.approx(losses.mean(), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_trial_at_once(workshop, recorder):
    shop = workshop()
    job = shop.job(optimizer="sgd", schedule="constant", warmup=PhaseSpec(5, 1e30))
    seen = recorder()
    with pytest.raises(
        TrialError, match=r"loss became NaN or infinite in epoch 1 of 5 of the warm"
    ):
        shop.train(job, seen)
    assert len(seen.steps) < 4
    assert not seen.reports


class OutOfMemory:
    """Wraps a network's segments so that they fail above a batch size, as CUDA would."""

    def __init__(self, monkeypatch, limit, training_only=True):
        from automl_tl_torch.network import Network

        original = Network.trainable
        self.calls = []

        def segment(network, start, stop):
            module = original(network, start, stop)

            def forward(x):
                self.calls.append((len(x), torch.is_grad_enabled()))
                if len(x) > limit and (torch.is_grad_enabled() or not training_only):
                    raise torch.OutOfMemoryError("Tried to allocate 20 GiB. GPU 0 has ...")
                return module(x)

            return forward

        monkeypatch.setattr(Network, "trainable", segment)


def test_out_of_memory_halves_the_batch_and_keeps_the_numbers(workshop, monkeypatch):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, head=Head(3), optimizer="sgd")
    _, plain_facts, expected = shop.train(job)
    assert plain_facts.notes == ()
    memory = OutOfMemory(monkeypatch, limit=3)
    _, facts, found = shop.train(job)
    assert facts.notes == ("out of memory: batch size 8 became 4 x 2",)
    assert len([n for n, grad in memory.calls if grad and n > 3]) == 2
    scale = np.abs(expected.logits).max()
    assert np.abs(found.logits - expected.logits).max() <= 1e-5 * scale
    losses = [report.train_loss for report in found.reports]
    assert losses == pytest.approx([report.train_loss for report in expected.reports], rel=1e-5)


def test_out_of_memory_in_validation(workshop, monkeypatch):
    shop = workshop(images=48)
    cut = shop.cut(0.6)
    _, _, expected = shop.train(shop.tuning(cut, cut))
    OutOfMemory(monkeypatch, limit=9, training_only=False)
    _, facts, found = shop.train(shop.tuning(cut, cut))
    assert facts.notes == ("validation: out of memory: batch size 64 became 8 x 8",)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_out_of_memory_with_one_image(workshop, monkeypatch):
    shop = workshop()
    OutOfMemory(monkeypatch, limit=0)
    with pytest.raises(TrialError, match=r"even with one image .*choose a smaller"):
        shop.train(shop.tuning(0, 0))


def test_activations_from_above_the_layers_to_train(workshop):
    shop = workshop()
    with pytest.raises(TrialError, match="a mistake in the plan"):
        shop.train(shop.tuning(shop.cut(0.8), shop.cut(0.4)))


@pytest.mark.parametrize(
    ("limits", "reported"),
    [({"epochs": 1}, 1), ({"epochs": 3}, 3), ({"steps": 12}, 2), ({"steps": 19}, 3)],
)
def test_the_file_holds_the_last_reported_epoch(workshop, recorder, tmp_path, limits, reported):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    seen = recorder(FinishTraining("time is up"), **limits)
    trainer = shop.backend.trainer(job)
    with pytest.raises(FinishTraining):
        trainer.run(seen)
    assert len(seen.reports) == reported
    assert seen.steps[-1][0] == ("warm-up" if limits == {"epochs": 1} else "fine-tuning")
    path = tmp_path / "model.safetensors"
    trainer.save(path, shop.facts(job).metadata())
    logits = shop.backend.load(path).logits(shop.pixels[shop.validation_rows])
    np.testing.assert_allclose(logits, seen.reports[-1].validation_logits, rtol=1e-4, atol=1e-5)


def test_stopped_in_its_first_epoch_the_file_holds_the_head_that_was_given(
    workshop, recorder, tmp_path
):
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    widths = pairwise((job.info.features, *job.head.units, job.head.classes))
    shapes = [shape for a, b in widths for shape in ((a, b), (b,))]
    weights = tuple(np.full(shape, 0.1, np.float32) for shape in shapes)
    job = dataclasses.replace(job, head_weights=weights)
    trainer = shop.backend.trainer(job)
    with pytest.raises(FinishTraining):
        trainer.run(recorder(FinishTraining("time is up"), steps=2))
    path = tmp_path / "model.safetensors"
    trainer.save(path, shop.facts(job).metadata())
    expected = tmp_path / "given.safetensors"
    shop.backend.assemble(job.network, job.head, weights, expected, shop.facts(job).metadata())
    found, given = load_file(path), load_file(expected)
    assert found.keys() == given.keys()
    assert all(np.array_equal(found[name], given[name]) for name in given)


def test_a_trial_pruned_before_its_first_epoch_has_no_model(workshop, recorder, tmp_path):
    shop = workshop()
    trainer = shop.backend.trainer(shop.job())
    with pytest.raises(PruneTraining):
        trainer.run(recorder(PruneTraining("hopeless"), steps=1))
    assert trainer.facts().trainable_variables == 4
    with pytest.raises(TrialError, match="before its first epoch"):
        trainer.save(tmp_path / "model.safetensors", {})
    assert not list(tmp_path.glob("*.safetensors"))


def test_training_leaves_the_callers_random_numbers_alone(workshop):
    shop = workshop()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    shop.train(dataclasses.replace(shop.job(), seed=9))
    assert torch.equal(torch.rand(3), expected)
