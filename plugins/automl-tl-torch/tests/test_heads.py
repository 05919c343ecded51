"""A head trains to the same numbers in NumPy, in the core, as in PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from automl_tl.training.split import SplitTrainer
from automl_tl.types import Head, PhaseSpec


def assert_same(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("units", [(), (16,), (16, 8)])
def test_without_dropout_they_agree(workshop, recorder, optimizer, units):
    shop = workshop()
    head = Head(shop.classes, units, scale=0.6)
    job = shop.job(head=head, optimizer=optimizer, warmup=PhaseSpec(3, 3e-3), weight_decay=1e-2)
    _, facts, expected = shop.train(job)
    found = recorder()
    core = SplitTrainer(job, shop.backend)
    core_facts = core.run(found)
    assert_same(found.logits, expected.logits)
    losses = [report.train_loss for report in expected.reports]
    assert [report.train_loss for report in found.reports] == pytest.approx(losses, rel=1e-4)
    assert core_facts == facts


def test_with_dropout_they_agree_on_average(workshop, recorder):
    shop = workshop(images=120)
    job = shop.job(head=Head(shop.classes, dropout=0.5), warmup=PhaseSpec(20, 3e-3))
    _, _, expected = shop.train(job)
    found = recorder()
    SplitTrainer(job, shop.backend).run(found)
    assert not np.array_equal(found.logits, expected.logits)
    last = found.reports[-1], expected.reports[-1]
    assert last[0].train_loss == pytest.approx(last[1].train_loss, rel=0.1)


def test_fine_tuning_goes_on_from_the_warm_head(workshop, recorder):
    shop = workshop()
    at = shop.cut(0.6)
    job = shop.tuning(at, at, head=Head(shop.classes, (16,)))
    _, facts, expected = shop.train(job)
    found = recorder()
    split = SplitTrainer(job, shop.backend)
    assert split.run(found) == facts
    assert [r.epoch for r in found.reports] == [r.epoch for r in expected.reports]
    assert [r.phase for r in found.reports] == [r.phase for r in expected.reports]
    assert_same(found.logits, expected.logits)


def test_a_frozen_model_is_saved_with_the_trained_head(workshop, recorder, tmp_path):
    shop = workshop()
    job = dataclasses.replace(shop.job(), fine_tuning=PhaseSpec(0, 1e-3))
    found = recorder()
    split = SplitTrainer(job, shop.backend)
    split.run(found)
    path = tmp_path / "model.safetensors"
    split.save(path, shop.facts(job).metadata())
    logits = shop.backend.load(path).logits(shop.pixels[shop.validation_rows])
    assert_same(logits, found.reports[-1].validation_logits)
