from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from automl_tl import calibration, metrics, testsplit
from automl_tl.calibrated import calibrated
from automl_tl.errors import ExportError
from automl_tl.study_data import StudyData

N = 400


@pytest.fixture
def data(facts):
    splits = ("validation", "test") * (N // 2)
    return StudyData(
        classes=facts.classes,
        names=tuple(map(str, range(N))),
        labels=np.random.default_rng(0).integers(3, size=N),
        splits=splits,
        hashes=("",) * N,
        dataset_hash="",
        facts={},
    )


@pytest.fixture
def logits(data):
    """Right seven times of ten and always as sure as nine times of ten."""
    draws = np.random.default_rng(1)

    def made(split):
        labels = data.labels[data.rows(split)]
        named = np.where(draws.random(len(labels)) < 0.7, labels, (labels + 1) % 3)
        return (3 * np.eye(3)[named] + draws.normal(0, 0.1, (len(labels), 3))).astype(np.float32)

    return {split: made(split) for split in ("validation", "test")}


def test_figures_become_those_of_the_divided_logits(facts, data, logits):
    told = replace(facts, test=testsplit.figures(logits["test"], data.labels[data.rows("test")]))
    found = calibrated(told, data, logits, "trial 7")
    done = found.extra["calibration"]
    assert done["fitted_on"] == "validation" and done["temperature"] > 1.2
    for split, figures in (("validation", found.validation), ("test", found.test)):
        labels = data.labels[data.rows(split)]
        divided = logits[split] / np.float32(done["temperature"])
        assert figures["log_loss"] == pytest.approx(metrics.value(divided, labels, "log_loss"))
        row = done["splits"][split]
        before = calibration.reliability(logits[split], labels)["ece"]
        after = calibration.reliability(divided, labels)["ece"]
        assert row["ece"] == pytest.approx({"before": before, "after": after})
        assert row["ece"]["after"] < row["ece"]["before"]
        assert row["log_loss"]["after"] == pytest.approx(figures["log_loss"])
        assert row["n"] == N // 2
    assert {key: found.test[key] for key in ("accuracy", "interval", "n")} == {
        key: told.test[key] for key in ("accuracy", "interval", "n")
    }


def test_the_test_split_has_no_part_where_it_was_not_looked_at(facts, data, logits):
    found = calibrated(facts, data, logits, "trial 7")
    assert not found.test
    assert set(found.extra["calibration"]["splits"]) == {"validation"}


def test_test_figures_without_logits_lose_what_changed(facts, data, logits):
    told = replace(facts, test={"accuracy": 0.9, "log_loss": 0.3, "n": 10})
    found = calibrated(told, data, {**logits, "test": None}, "trial 7")
    assert found.test == {"accuracy": 0.9, "n": 10}


def test_where_no_temperature_fits_it_says_so(facts, data, logits):
    labels = data.labels[data.rows("validation")]
    right = np.eye(3, dtype=np.float32)[labels]
    for values, message in (
        (right, "trial 7 gets 200 of 200 right; leave out --calibrate"),
        (right[:, [1, 2, 0]] * 0 + np.roll(right, 1, axis=1), "trial 7 gets 0 of 200 right"),
        (None, "logits of trial 7.*are missing; leave out --calibrate"),
    ):
        with pytest.raises(ExportError, match=message):
            calibrated(facts, data, {"validation": values, "test": None}, "trial 7")
