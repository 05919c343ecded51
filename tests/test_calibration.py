from __future__ import annotations

import numpy as np
import pytest

from automl_tl import calibration, metrics


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(true: float) -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (20_000, 4)).astype(np.float32)
    shares = metrics.probabilities(honest).cumsum(axis=1)
    labels = (random.random((20_000, 1)) > shares).sum(axis=1).clip(0, 3)
    found = calibration.fit(honest * true, labels)
    assert found == pytest.approx(true, rel=0.05)
    before = calibration.reliability(honest * true, labels)
    after = calibration.reliability(honest * true, labels, found)
    assert after["ece"] < 0.02
    assert before["accuracy"] == after["accuracy"]
    if true != 1:
        assert before["ece"] > 0.05


def test_the_calibration_error_by_hand() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], np.float32))
    labels = np.array([0, 1, 0, 0])
    found = calibration.reliability(logits, labels)
    assert found["ece"] == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0))
    assert [row["n"] for row in found["bins"]] == [2, 2]
    assert calibration.fit(logits, np.zeros(4, np.int64)) is None
