"""A head trains to the same numbers in NumPy, in the core, as in Keras."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from automl_tl.training.split import SplitTrainer
from automl_tl.types import Head, PhaseSpec


def assert_same(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_without_dropout_they_agree(workshop, recorder, optimizer):
    shop = workshop()
    head = Head(shop.classes, (16,))
    job = shop.job(head=head, optimizer=optimizer, warmup=PhaseSpec(3, 3e-3), weight_decay=1e-2)
    _, facts, expected = shop.train(job)
    found = recorder()
    assert SplitTrainer(job, shop.backend).run(found) == facts
    assert_same(found.logits, expected.logits)


def test_fine_tuning_goes_on_from_the_warm_head(workshop, recorder):
    shop = workshop()
    at = shop.cut(0.6)
    # Adam divides slopes by their size, and so makes much of those that are rounding alone.
    job = shop.tuning(at, at, head=Head(shop.classes, (16,)), optimizer="sgd")
    _, facts, expected = shop.train(job)
    found = recorder()
    assert SplitTrainer(job, shop.backend).run(found) == facts
    assert [r.epoch for r in found.reports] == [r.epoch for r in expected.reports]
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
