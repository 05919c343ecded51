"""What a report says of an ensemble, and what it does not look at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from automl_tl import ensemble_trials, metrics
from automl_tl.modelfile import ModelFacts
from automl_tl.types import Head

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.report.conftest import Made


def read(path: Path) -> str:
    """Return the text of a page's commands and sentences."""
    page = path.read_text(encoding="utf-8")
    return re.sub(r"</?span>", "", page)


def logits_of(made: Made, sure: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Surely right where it is sure, and just wrong elsewhere."""
    labels = made.data.labels[made.data.rows("validation")]
    right = 4 * np.eye(3, dtype=np.float32)[labels]
    wrong = 0.5 * np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    return np.where(sure[:, None], right, wrong).astype(np.float32)


def keep(made: Made, number: int) -> None:
    facts = ModelFacts("torch/tiny", 32, "squash", made.data.classes, Head(3), 0)
    arrays = {"head.bias": np.zeros(3, np.float32)}
    save_file(arrays, made.directory.model(number), facts.metadata())


@pytest.fixture
def halves(empty: Made) -> Made:
    """Two kept trials that are right on different halves, and one of a third that is not kept."""
    n = len(empty.data.rows("validation"))
    place = np.arange(n) / n
    study = empty.study
    empty.add(study, logits_of(empty, place < 0.6))
    empty.add(study, logits_of(empty, (place > 0.5) & (place < 0.9)))
    empty.add(study, logits_of(empty, place > 0.85))
    keep(empty, 0)
    keep(empty, 1)
    empty.test(0, 0.8)
    return empty


def test_members_values_and_what_all_trials_would_reach(halves: Made) -> None:
    found = halves.facts()["together"]
    assert (found["best"]["trial"], found["kept"]) == (0, [0, 1])
    assert [one["trial"] for one in found["members"]] == [0, 1]
    assert found["value"] == pytest.approx(0.9, abs=0.06)
    assert found["value"] > found["best"]["value"] + 0.2
    assert found["reachable"] == {"value": 1.0, "members": 3, "trials": 3}
    assert found["members"][1]["recipe"].startswith("keras/Other, fine-tuned from layer 6 of 12")


def test_the_best_trials_alone_are_considered(
    halves: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = list(range(halves.data.labels.size))
    held = 4 * 3 * len(halves.data.rows("validation"))
    assert ensemble_trials.considered(halves.data, complete) == complete[:100]  # type: ignore[arg-type]
    monkeypatch.setattr(ensemble_trials, "ROOM", 5 * held + 1)
    assert ensemble_trials.considered(halves.data, complete) == complete[:5]  # type: ignore[arg-type]
    halves.add(halves.study, logits_of(halves, np.zeros(held // 12, bool)))
    monkeypatch.setattr(ensemble_trials, "CONSIDERED", 3)
    assert halves.facts()["together"]["reachable"]["trials"] == 3


def test_the_test_split_is_told_only_where_an_export_counted_it(halves: Made) -> None:
    before = halves.directory.result()
    assert before is not None
    facts = halves.facts()
    assert facts["together"]["test"] is None
    text = read(halves.report())
    assert "exporting the ensemble does so, and counts it as one more look" in text
    assert halves.directory.result() == before

    members = [
        {key: one[key] for key in ("trial", "draws", "weight")}
        for one in facts["together"]["members"]
    ]
    labels = halves.data.labels[halves.data.rows("test")]
    test = {
        **metrics.from_logits(halves.logits("test", 0.9), labels),
        "interval": [0.25, 0.99],
    }
    counted = {**before, "evaluations": 2, "ensemble": {"members": members, "test": test}}
    halves.directory.write_result(counted)
    assert halves.facts()["together"]["test"] == test
    text = read(halves.report())
    assert "(25.0\u202f% to 99.0\u202f%)" in text
    assert "looked at 2 times" in text
    assert "automl-tl export made --ensemble -o ensemble.onnx" in text

    members[0]["draws"] += 1
    halves.directory.write_result({**counted, "ensemble": {"members": members, "test": test}})
    assert halves.facts()["together"]["test"] is None


def test_figures_of_an_ensemble_that_are_none_are_computed_again(halves: Made) -> None:
    sound = halves.directory.result()
    assert sound is not None
    members = halves.facts()["together"]["members"]
    members = [{key: one[key] for key in ("trial", "draws", "weight")} for one in members]
    without = {name: value for name, value in sound["test"].items() if name != "interval"}
    for odd in ([1], None, {"members": members}, {"members": members, "test": without}):
        halves.directory.write_result({**sound, "ensemble": odd})
        assert halves.directory.result() is None
        assert halves.facts()["together"]["test"] is None
    halves.report()


def test_where_no_ensemble_is_better_it_says_so(empty: Made) -> None:
    study = empty.study
    sure = np.arange(len(empty.data.rows("validation"))) % 4 > 0
    for number in range(2):
        empty.add(study, logits_of(empty, sure))
        if not number:
            keep(empty, number)
            text = read(empty.report())
            assert "Nobody can say yet: it takes the models of two trials" in text
    keep(empty, 1)
    found = empty.facts()["together"]
    assert (found["members"], found["test"], found["reachable"]) == ([], None, None)
    assert found["value"] == found["best"]["value"]
    text = read(empty.report())
    assert "models are kept (0, 1) is better on the validation images than trial 0 alone" in text


def test_without_a_trial_nothing_is_together(empty: Made) -> None:
    assert empty.facts()["together"] is None


def test_the_page_tells_how_to_calibrate(made: Made) -> None:
    text = read(made.report())
    assert "automl-tl export made -o model.onnx --calibrate" in text
