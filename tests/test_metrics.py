from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)

from automl_tl import metrics
from automl_tl.errors import TrialError, UsageError


def sample(n=200, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize(("n", "classes"), [(200, 5), (30, 2), (7, 12), (500, 40)])
def test_metrics_are_scikit_learns(n, classes):
    logits, labels = sample(n, classes, seed=n)
    found = metrics.from_logits(logits, labels)
    predicted = logits.argmax(axis=1)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    there = {"labels": np.unique(labels), "average": "macro"}
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(labels, predicted),
            "balanced_accuracy": recall_score(labels, predicted, **there),
            "macro_f1": f1_score(labels, predicted, **there),
            "log_loss": log_loss(labels, shares, labels=range(classes)),
            "n": n,
        }
    )


@pytest.mark.parametrize("metric", metrics.DIRECTIONS)
def test_one_metric_alone_is_the_same_number(metric):
    logits, labels = sample()
    assert metrics.value(logits, labels, metric) == metrics.from_logits(logits, labels)[metric]


def test_better_logits_move_every_metric_in_its_direction():
    logits, labels = sample()
    better = logits.copy()
    better[np.arange(len(labels)), labels] += 1
    old, new = metrics.from_logits(logits, labels), metrics.from_logits(better, labels)
    for name, direction in metrics.DIRECTIONS.items():
        assert (new[name] > old[name]) == (direction == "maximize"), name


def test_no_metric_needs_scikit_learn():
    code = (
        "import sys, numpy as np\n"
        "import automl_tl.worker\n"
        "from automl_tl import metrics\n"
        "logits, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])\n"
        "print(metrics.from_logits(logits, labels)['accuracy'])\n"
        "metrics.by_class(logits, labels)\n"
        "assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(2 / 3)


def test_classes_missing_in_the_labels_are_left_out_of_the_averages():
    # Class 2 is predicted once but never true.
    logits = np.array([[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], np.float32)
    labels = np.array([0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.from_logits(logits, labels)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75  # (1 + 1/2) / 2
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, 0], [1e4, 0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.value(logits, np.array([0, 1]), "log_loss")
    assert math.isfinite(found) and found > 10
    assert metrics.probabilities(logits).sum() == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail_the_trial(bad):
    logits, labels = sample(4)
    logits[1, 2] = bad
    for call in (
        lambda: metrics.from_logits(logits, labels),
        lambda: metrics.value(logits, labels, "accuracy"),
        lambda: metrics.by_class(logits, labels),
    ):
        with pytest.raises(TrialError, match="finite"):
            call()


def test_wrong_shapes_and_names_are_told():
    logits, labels = sample(4)
    with pytest.raises(TrialError, match=r"\(4, 5\) for 3 labels"):
        metrics.value(logits, labels[:3], "accuracy")
    with pytest.raises(TrialError, match="n > 0"):
        metrics.from_logits(logits[:0], labels[:0])
    with pytest.raises(UsageError, match=r"balanced_accuracy.*'recall'"):
        metrics.value(logits, labels, "recall")


def test_figures_by_class_are_scikit_learns():
    logits, labels = sample()
    rows = metrics.by_class(logits, labels)
    expected = precision_recall_fscore_support(labels, logits.argmax(axis=1))
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[name] for row in rows] == pytest.approx(list(column)), name
    matrix = metrics.confusion(logits, labels)
    assert matrix.sum() == 200
    assert matrix.trace() == (logits.argmax(axis=1) == labels).sum()
    assert matrix.sum(axis=1).tolist() == [row["support"] for row in rows]


def test_figures_of_a_class_that_does_not_occur_are_none():
    logits = np.array([[3, 0, 0], [0, 0, 3]], np.float32)
    one, two, three = metrics.by_class(logits, np.array([0, 0]))
    assert (one["precision"], one["recall"], one["support"]) == (1.0, 0.5, 2)
    assert two == dict.fromkeys(("precision", "recall", "f1", "recall_interval")) | {"support": 0}
    assert (three["precision"], three["recall"], three["f1"]) == (0.0, None, None)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_the_published_one(correct, n, low, high):
    assert metrics.interval(correct, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = metrics.interval(n - correct, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_interval_at_the_ends():
    assert metrics.interval(0, 0) == (0, 1)
    assert metrics.interval(10, 10)[1] == 1
    assert metrics.interval(0, 10)[0] == 0
    narrow, wide = metrics.interval(50, 100, 0.5), metrics.interval(50, 100, 0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_optimism_is_what_chance_gives():
    # 20 equally good classifiers that err independently: how much does the best one flatter?
    trials, n, truth = 20, 200, 0.9
    draws = np.random.default_rng(0).binomial(n, truth, size=(4000, trials)) / n
    chance = float(draws.max(axis=1).mean() - truth)
    found = metrics.optimism(truth, n, trials)
    assert found["expected"] == pytest.approx(chance, rel=0.1)


def test_optimism_grows_with_trials_and_shrinks_with_images():
    assert metrics.optimism(0.9, 100, 1)["expected"] == 0
    few, many = metrics.optimism(0.9, 100, 2), metrics.optimism(0.9, 100, 100)
    assert few["expected"] / few["standard_error"] == pytest.approx(1 / math.sqrt(math.pi))
    assert 0 < few["expected"] < many["expected"]
    assert metrics.optimism(0.9, 10_000, 100)["expected"] < many["expected"] / 5
    assert metrics.optimism(1.0, 100, 10)["expected"] > 0


def test_optimism_tells_people():
    found = metrics.optimism(0.95, 120, 50, test=0.9, n_test=120)
    assert found["warn"] and found["gap"] == pytest.approx(0.05)
    for part in ("50 trials", "120 validation images", "95.0 %", "90.0 %, 5.0 points lower"):
        assert part in found["sentence"]
    assert "2.0 points higher" in metrics.optimism(0.9, 50, 2, 0.92, 50)["sentence"]
    calm = metrics.optimism(0.99, 100_000, 2, test=0.99, n_test=100_000)
    assert not calm["warn"] and "the same" in calm["sentence"]
    # No choice was made, but the gap is far beyond chance.
    assert metrics.optimism(0.99, 10_000, 1, test=0.9, n_test=10_000)["warn"]
    assert "only trial" in metrics.optimism(0.99, 10, 1)["sentence"]


def test_goodness_is_larger_for_the_better() -> None:
    assert metrics.goodness(0.9, "accuracy") > metrics.goodness(0.8, "accuracy")
    assert metrics.goodness(0.2, "log_loss") > metrics.goodness(0.3, "log_loss")


def test_optimism_of_other_metrics_speaks_of_them():
    found = metrics.optimism(0.312, 120, 20, test=0.345, n_test=121, metric="log_loss")
    assert found["warn"] and found["expected"] is None
    assert found["gap"] == pytest.approx(0.033)
    assert "accuracy" not in found["sentence"]
    assert "validation log loss (0.3120)" in found["sentence"]
    assert (
        "121 test images that the search never saw it is 0.3450, 0.0330 worse" in found["sentence"]
    )
    better = metrics.optimism(0.8, 120, 20, test=0.9, n_test=121, metric="macro_f1")
    assert "0.9000, 0.1000 better" in better["sentence"]
