"""Heads trained in NumPy: alone, stacked, and against formulas written out."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc

import numpy as np
import pytest

from automl_tl.errors import FinishTraining, UsageError
from automl_tl.training import together
from automl_tl.training.head import parameters
from automl_tl.training.heads import HeadStack
from automl_tl.training.scale import feature_scale
from automl_tl.training.together import LARGEST, fits, train_together
from automl_tl.types import (
    Cut,
    Head,
    Layer,
    NetworkInfo,
    NetworkSpec,
    PhaseSpec,
    Source,
    TrainJob,
)

FEATURES, CLASSES, TRAIN, VALIDATION = 12, 3, 50, 17
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")


class Recorder:
    def __init__(self, stop_after=None):
        self.reports, self.steps, self.stop_after = [], [], stop_after

    def need(self, source):
        pass

    def epoch(self, report):
        self.reports.append(report)
        if len(self.reports) == self.stop_after:
            raise FinishTraining("enough")

    def step(self, what, done, total):
        self.steps.append((what, done, total))


@pytest.fixture
def job(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(TRAIN + VALIDATION) % CLASSES
    features = random.standard_normal((len(labels), FEATURES)).astype(np.float32)
    features[np.arange(len(labels)), labels] += 2
    np.save(tmp_path / "features.npy", features)
    info = NetworkInfo(
        (Layer("all", "Net", 10),),
        (Cut(0, (8, 8, 3), 0), Cut(1, (FEATURES, 2, 2), 100)),
        FEATURES,
        "1",
    )
    rows = random.permutation(len(labels))
    source = Source(tmp_path / "features.npy", 1, "avg")
    return TrainJob(
        network=NetworkSpec("x/y", 8, None, "random:0"),
        info=info,
        head=Head(CLASSES, (7,), 0.3, scale=0.6),
        fine_tune_at=1,
        warmup=PhaseSpec(4, 1e-2),
        fine_tuning=PhaseSpec(0, 1e-3),
        optimizer="adam",
        schedule="cosine",
        weight_decay=1e-2,
        batch_size=8,
        label_smoothing=0.1,
        class_weights=np.array([0.5, 1.0, 1.5], np.float32),
        seed=3,
        train_labels=labels[rows[:TRAIN]],
        head_train=dataclasses.replace(source, rows=rows[:TRAIN]),
        head_validation=dataclasses.replace(source, rows=rows[TRAIN:]),
    )


def train(job, stop_after=None):
    recorder = Recorder(stop_after)
    (ending,) = train_together([job], [recorder])
    assert bool(ending.error) == bool(stop_after)
    return ending, np.stack([report.validation_logits for report in recorder.reports])


def test_it_learns_and_reports_every_epoch(job):
    recorder = Recorder()
    long = dataclasses.replace(job, warmup=PhaseSpec(30, 1e-2))
    (ending,) = train_together([long], [recorder])
    assert [report.epoch for report in recorder.reports] == list(range(30))
    assert {report.phase for report in recorder.reports} == {"warm-up"}
    losses = [report.train_loss for report in recorder.reports]
    assert losses[-1] < 0.6 * losses[0]
    labels = np.load(job.head_train.path)[job.head_validation.rows][:, :CLASSES].argmax(axis=1)
    agree = recorder.reports[-1].validation_logits.argmax(axis=1) == labels
    assert agree.mean() > 0.7
    assert [array.shape for array in ending.weights] == [(FEATURES, 7), (7,), (7, 3), (3,)]


def test_the_same_job_repeats_bit_for_bit_and_another_seed_does_not(job):
    first, again = train(job)[1], train(job)[1]
    other = train(dataclasses.replace(job, seed=4))[1]
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_features_too_large_for_memory_give_the_same_numbers(job, monkeypatch):
    expected = train(job)[1]
    monkeypatch.setattr("automl_tl.training.rows.Rows.fits", False)
    assert np.array_equal(train(job)[1], expected)


def test_stopped_by_its_owner_it_keeps_the_last_reported_epoch(job):
    short = dataclasses.replace(job, schedule="constant", warmup=PhaseSpec(2, 1e-2))
    long = dataclasses.replace(short, warmup=PhaseSpec(9, 1e-2))
    stopped, _ = train(long, stop_after=2)
    assert isinstance(stopped.error, FinishTraining)
    for found, expected in zip(stopped.weights, train(short)[0].weights, strict=True):
        assert np.array_equal(found, expected)


def many(job):
    """Heads of all shapes, optimizers, rates, dropouts, batch sizes and lengths."""
    random = np.random.default_rng(5)
    return [
        dataclasses.replace(
            job,
            head=Head(CLASSES, units, float(random.choice([0.0, 0.3, 0.5])), scale=0.6),
            optimizer=optimizer,
            batch_size=batch_size,
            warmup=PhaseSpec(epochs, float(random.choice([1e-2, 3e-3]))),
            weight_decay=float(random.choice([0.0, 1e-2])),
            label_smoothing=float(random.choice([0.0, 0.1])),
        )
        for optimizer in OPTIMIZERS
        for units, batch_size, epochs in [((), 8, 4), ((), 8, 6), ((), 16, 5), ((7,), 8, 4)]
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_together_every_head_reaches_the_numbers_that_it_reaches_alone(job, threads):
    jobs = many(job)
    recorders = [Recorder() for _ in jobs]
    endings = train_together(jobs, recorders, threads)
    for one, ending, recorder in zip(jobs, endings, recorders, strict=True):
        alone, logits = train(one)
        assert [report.epoch for report in recorder.reports] == list(range(one.warmup.epochs))
        found = np.stack([report.validation_logits for report in recorder.reports])
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
        for weights, expected in zip(ending.weights, alone.weights, strict=True):
            np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)


def test_together_each_ends_on_its_own(job):
    jobs = many(job)
    jobs[3] = dataclasses.replace(jobs[3], optimizer="sgd", warmup=PhaseSpec(4, 1e30))
    recorders = [Recorder(2 if number % 3 == 1 else None) for number in range(len(jobs))]
    with np.errstate(all="ignore"):
        endings = train_together(jobs, recorders)
    for number, (one, ending, recorder) in enumerate(zip(jobs, endings, recorders, strict=True)):
        if number == 3:
            assert "NaN or infinite" in str(ending.error)
            continue
        assert bool(ending.error) == (number % 3 == 1)
        assert len(recorder.reports) == (2 if ending.error else one.warmup.epochs)
        logits = train(one, 2 if ending.error else None)[1]
        found = np.stack([report.validation_logits for report in recorder.reports])
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


def test_stopped_in_the_middle_of_an_epoch_all_stand_at_the_last_reported_one(job, monkeypatch):
    class Impatient(Recorder):
        def step(self, what, done, total):
            raise FinishTraining("now")

    slow = HeadStack.train

    def train_slowly(stack, batches, rates, key):
        for result in slow(stack, batches, rates, key):
            yield result
            time.sleep(0.1 if key[2] == 2 else 0)

    monkeypatch.setattr(HeadStack, "train", train_slowly)
    monkeypatch.setattr("automl_tl.training.together._LOOK_SECONDS", 0.05)
    recorders = [Impatient(), Impatient()]
    long = dataclasses.replace(job, schedule="constant", warmup=PhaseSpec(50, 1e-2))
    endings = train_together([long, long], recorders, threads=2)
    monkeypatch.setattr(HeadStack, "train", slow)
    reported = len(recorders[0].reports)
    assert reported == 2
    short = dataclasses.replace(long, warmup=PhaseSpec(reported, 1e-2))
    for ending in endings:
        assert isinstance(ending.error, FinishTraining)
        for found, expected in zip(ending.weights, train(short)[0].weights, strict=True):
            assert np.array_equal(found, expected)


def test_features_are_scaled_to_a_root_mean_square_of_one(job, tmp_path, monkeypatch):
    rows = np.load(job.head_train.path)[job.head_train.rows]
    scale = feature_scale(job.head_train)
    assert np.sqrt(np.square(rows * scale).mean()) == pytest.approx(1, abs=5e-3)
    monkeypatch.setattr("automl_tl.training.scale._CHUNK", 64)
    assert feature_scale(job.head_train) == scale == float(f"{scale:.3g}")
    np.save(tmp_path / "dead.npy", np.zeros((4, 3), np.float32))
    assert feature_scale(Source(tmp_path / "dead.npy", 1, "avg")) == 1


def test_scaled_features_and_a_scale_train_to_the_same_numbers(job, tmp_path):
    expected = train(job)[1]
    np.save(tmp_path / "scaled.npy", np.load(job.head_train.path) * np.float32(job.head.scale))
    found = train(
        dataclasses.replace(
            job,
            head=dataclasses.replace(job.head, scale=1.0),
            head_train=dataclasses.replace(job.head_train, path=tmp_path / "scaled.npy"),
            head_validation=dataclasses.replace(job.head_validation, path=tmp_path / "scaled.npy"),
        )
    )[1]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("units", [(), (7,), (7, 5)])
def test_a_stack_computes_what_each_head_computes_alone(job, optimizer, units):
    random = np.random.default_rng(1)
    features = random.standard_normal((TRAIN, FEATURES)).astype(np.float32)
    labels = random.integers(0, CLASSES, TRAIN)
    jobs = [
        dataclasses.replace(
            job,
            optimizer=optimizer,
            head=Head(CLASSES, units, dropout),
            weight_decay=decay,
            label_smoothing=smoothing,
        )
        for dropout, decay, smoothing in [(0.0, 0.0, 0.0), (0.3, 1e-2, 0.1), (0.5, 1e-3, 0.2)]
    ]
    rates = np.array([[1e-2] * 7, [3e-3] * 7, [1e-3] * 7])

    def run(stack, rates):
        for epoch in range(3):
            starts = range(0, TRAIN, 8)
            batches = ((features[s : s + 8], labels[s : s + 8]) for s in starts)
            *_, (done, losses) = stack.train(batches, rates, (0, 0, epoch))
            assert done == TRAIN
        return losses, stack.logits(features)

    together, logits = run(HeadStack(jobs, FEATURES), rates)
    for index, single in enumerate(jobs):
        alone, expected = run(HeadStack([single], FEATURES), rates[index : index + 1])
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5)
        np.testing.assert_allclose(logits[index], expected[0], rtol=1e-4, atol=1e-5)
    dropped = HeadStack(jobs, FEATURES)
    dropped.drop(1)
    _, rest = run(dropped, rates[[0, 2]])
    np.testing.assert_allclose(rest, logits[[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("units", [(), (4,)])
def test_the_slope_is_that_of_the_loss(job, units):
    """Plain gradient descent moves every weight by minus the numerical slope times the rate."""
    single = dataclasses.replace(
        job, head=Head(CLASSES, units), optimizer="sgd", weight_decay=0.0, label_smoothing=0.1
    )
    random = np.random.default_rng(2)
    x = random.standard_normal((6, FEATURES)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2])
    stack = HeadStack([single], FEATURES)
    before = [array.astype(np.float64) for array in stack.weights(0)]
    *_, (_, total) = stack.train(iter([(x, y)]), np.array([[1.0]]), (0,))
    moved = [a - b for a, b in zip(stack.weights(0), before, strict=True)]

    def loss(weights):
        z = x.astype(np.float64)
        for layer in range(len(weights) // 2):
            z = np.maximum(z, 0) if layer else z
            z = z @ weights[2 * layer] + weights[2 * layer + 1]
        shares = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        target = np.full((6, CLASSES), 0.1 / CLASSES)
        target[np.arange(6), y] += 0.9
        return (-(target * shares).sum(axis=1) * job.class_weights[y]).mean()

    assert total[0] / 6 == pytest.approx(loss(before), rel=1e-5)
    for number, array in enumerate(before):
        for index in list(np.ndindex(array.shape))[::5]:
            slopes = []
            for sign in (1, -1):
                changed = [a.copy() for a in before]
                changed[number][index] += sign * 1e-5
                slopes.append(loss(changed))
            slope = (slopes[0] - slopes[1]) / 2e-5
            assert moved[number][index] == pytest.approx(-slope, abs=2e-5)


def test_which_heads_fit(job):
    assert fits(job)
    assert not fits(dataclasses.replace(job, head_train=Source(job.head_train.path, 0)))
    unpooled = dataclasses.replace(job.head_train, pooling=None)
    assert not fits(dataclasses.replace(job, head_train=unpooled))
    wide = Head(CLASSES, (LARGEST // FEATURES + 1,))
    assert not fits(dataclasses.replace(job, head=wide))
    assert parameters(Head(3, (4,)), 2) == 2 * 4 + 4 + 4 * 3 + 3


def test_an_unknown_optimizer_is_refused(job):
    with pytest.raises(UsageError, match="expected one of sgd, adam"):
        HeadStack([dataclasses.replace(job, optimizer="lion")], FEATURES)


def test_features_are_held_once_and_scaled(tmp_path):
    values = np.random.default_rng(0).standard_normal((20_000, 256)).astype(np.float32)
    np.save(tmp_path / "features.npy", values)
    source = Source(tmp_path / "features.npy", 1, "avg")
    tracemalloc.start()
    scale = feature_scale(source)
    held = together._Features(source, scale)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * values.nbytes
    assert np.array_equal(held._array, values * np.float32(scale))
    parts = np.concatenate(list(held.parts()))
    assert np.array_equal(parts, held._array)
