"""Training from stored activations and from pixels is the same computation."""

from __future__ import annotations

import dataclasses

import numpy as np
import psutil
import pytest
import torch

from automl_tl.types import Head, PhaseSpec, Source, View

TOLERANCE = 1e-4
"""Of the largest logit."""


def assert_same(found, expected):
    scale = np.abs(expected).max()
    assert scale > 1e-2
    assert np.ptp(expected[0], axis=0).max() > 1e-4  # the images differ
    assert np.abs(found - expected).max() <= TOLERANCE * scale


def from_pixels(shop, job):
    train, validation = shop.train_and_validation(0)
    return dataclasses.replace(
        job,
        head_train=train,
        head_validation=validation,
        tune_train=(train,) if job.tune_train else (),
        tune_validation=validation if job.tune_validation else None,
    )


@pytest.mark.parametrize(
    ("name", "image_size", "depth", "optimizer"),
    [
        ("tiny", 24, 0.55, "adam"),
        ("mobilenet_v2", 48, 0.8, "sgd"),
        ("efficientnet_b0", 32, 0.7, "adam"),
    ],
)
def test_every_cut_gives_the_numbers_of_the_pixels(workshop, name, image_size, depth, optimizer):
    shop = workshop(name, image_size)
    # At rates that make these random networks unstable, rounding grows to 1e-3 within four epochs.
    changes = {
        "warmup": PhaseSpec(2, 1e-3),
        "fine_tuning": PhaseSpec(2, 1e-4 if optimizer == "adam" else 3e-5),
        "optimizer": optimizer,
    }
    fine_tune_at = shop.cut(depth) + 1
    assert fine_tune_at < shop.end
    below = [cut for cut in shop.cuts if 0 < cut <= fine_tune_at]
    plain = from_pixels(shop, shop.tuning(0, fine_tune_at, **changes))
    _, facts, expected = shop.train(plain)
    assert len(expected.reports) == 4
    tuned = np.abs(expected.logits[-1] - expected.logits[1]).max()
    assert tuned > 1e-2 * np.abs(expected.logits).max()
    for cut in (below[0], below[len(below) // 2], below[-1]):
        _, cached_facts, found = shop.train(shop.tuning(cut, fine_tune_at, **changes))
        assert_same(found.logits, expected.logits)
        assert cached_facts == facts
        losses = [report.train_loss for report in found.reports]
        assert losses == pytest.approx([report.train_loss for report in expected.reports], 1e-4)


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2"])
def test_a_frozen_trial_on_pooled_features(workshop, name):
    shop = workshop(name, 32)
    job = shop.job()
    _, facts, found = shop.train(job)
    _, plain_facts, expected = shop.train(from_pixels(shop, job))
    assert_same(found.logits, expected.logits)
    assert facts == plain_facts


def test_flatten_pools_nothing_before_the_head(workshop):
    shop = workshop()
    head = Head(shop.classes, dropout=0.2, pooling="flatten")
    train, validation = shop.train_and_validation(shop.end)
    job = shop.job(head=head, head_train=train, head_validation=validation)
    _, _, found = shop.train(job)
    _, _, expected = shop.train(from_pixels(shop, job))
    assert_same(found.logits, expected.logits)


def test_max_pooling(workshop):
    shop = workshop()
    train, validation = shop.train_and_validation(shop.end, "max")
    head = Head(shop.classes, pooling="max")
    job = shop.job(head=head, head_train=train, head_validation=validation)
    _, _, found = shop.train(job)
    _, _, expected = shop.train(from_pixels(shop, job))
    assert_same(found.logits, expected.logits)


def test_activations_in_half_precision_train_to_nearly_the_same_numbers(
    workshop, recorder, tmp_path
):
    shop = workshop()
    cut = shop.cut(0.5)
    job = shop.tuning(cut, cut)
    _, _, expected = shop.train(job)
    half = tmp_path / "half.npy"
    np.save(half, np.load(job.tune_train[0].path).astype(np.float16))

    def halved(source):
        return dataclasses.replace(source, path=half)

    changed = {"tune_train": (halved(job.tune_train[0]),)}
    changed["tune_validation"] = halved(job.tune_validation)
    _, _, found = shop.train(dataclasses.replace(job, **changed))
    off = np.abs(found.logits - expected.logits).max()
    assert 0 < off < 2e-2 * np.abs(expected.logits).max()
    out = tmp_path / "above.npy"
    np.save(out, np.zeros((shop.images, shop.info.features), np.float32))
    shop.backend.run(shop.spec, Source(half, cut), shop.end, "avg", out, recorder())
    exact = np.load(shop.stored(shop.end, "avg").path)
    assert np.abs(np.load(out) - exact).max() < 5e-3 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2"])
def test_stored_views_stand_for_augmented_pixels(workshop, name):
    shop = workshop(name, 32)
    cut = shop.cut(0.6)
    views = [View(0.8, seed=3, index=index) for index in range(2)]
    # Adam makes a step of any gradient, however small, and so of rounding too.
    changes = {"warmup": PhaseSpec(2, 1e-3), "fine_tuning": PhaseSpec(3, 1e-4), "optimizer": "sgd"}
    jobs = []
    for stored in (cut, 0):
        sources = [shop.train_and_validation(stored, view=view) for view in views]
        job = shop.tuning(
            stored,
            cut,
            **changes,
            tune_train=tuple(train for train, _ in sources),
            tune_validation=sources[0][1],
        )
        jobs.append(job)
    _, _, found = shop.train(jobs[0])
    _, _, expected = shop.train(jobs[1])
    assert_same(found.logits, expected.logits)
    _, _, plain = shop.train(shop.tuning(0, cut, **changes))
    assert np.abs(plain.logits[-1] - expected.logits[-1]).max() > 10 * TOLERANCE


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(workshop):
    shop = workshop()
    job = shop.tuning(shop.cut(0.5), shop.cut(0.5))
    _, _, first = shop.train(job)
    torch.manual_seed(99)
    _, _, again = shop.train(job)
    _, _, other = shop.train(dataclasses.replace(job, seed=8))
    assert np.array_equal(first.logits, again.logits)
    assert not np.array_equal(first.logits, other.logits)


def test_arrays_too_large_for_memory_give_the_same_numbers(workshop, monkeypatch):
    shop = workshop()
    job = shop.tuning(shop.cut(0.5), shop.cut(0.5))
    _, _, in_memory = shop.train(job)
    full = type("Memory", (), {"total": 0, "available": 0})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: full)
    _, _, on_disk = shop.train(job)
    monkeypatch.setattr("automl_tl.training.rows._MIXED_BYTES", 0)
    _, _, row_by_row = shop.train(job)
    assert np.array_equal(in_memory.logits, on_disk.logits)
    assert np.array_equal(in_memory.logits, row_by_row.logits)
