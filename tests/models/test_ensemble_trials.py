from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from automl_tl.ensemble_trials import kept, propose, reachable
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData

LABELS = np.array([0, 1, 2, 0])


@pytest.fixture
def data(facts):
    return StudyData(
        classes=facts.classes,
        names=tuple("abcd"),
        labels=LABELS,
        splits=("validation",) * 4,
        hashes=("",) * 4,
        dataset_hash="",
        facts={},
    )


@pytest.fixture
def directory(tmp_path):
    return StudyDirectory(tmp_path, Config("s", "photos", ("torch/tiny",)))


@pytest.fixture
def write(directory, facts):
    """``write(number, right, **changed facts)``: the trial is sure and right on some images."""

    def run(number, right, model=True, **changes):
        directory.trial(number).mkdir(parents=True)
        logits = 0.5 * np.eye(3, dtype=np.float32)[(LABELS + 1) % 3]
        for image in right:
            logits[image] = 4 * np.eye(3)[LABELS[image]]
        np.save(directory.trial(number) / "validation_logits.npy", logits)
        if model:
            metadata = replace(facts, **changes).metadata()
            save_file({"w": np.zeros(1)}, directory.model(number), metadata=metadata)
        return SimpleNamespace(number=number)

    return run


def test_members_are_kept_and_share_the_pixels_of_the_best(directory, data, write):
    trials = [
        write(4, [0], image_size=32),
        write(1, [0, 1, 2, 3], model=False),
        write(2, [1, 2], image_size=48),
        write(3, [1, 2], image_size=32, resize="pad"),
        write(7, [1, 2, 3], image_size=32),
        write(5, [1, 2], image_size=32),
    ]
    (directory.trial(5) / "validation_logits.npy").write_bytes(b"torn")
    found = kept(directory, data, trials)
    assert [one.number for one in found] == [4, 7]
    proposed = propose(directory, data, trials)
    assert proposed == {
        "members": [
            {"trial": 4, "draws": 1, "weight": 0.5},
            {"trial": 7, "draws": 1, "weight": 0.5},
        ],
        "value": 1.0,
    }
    every = reachable(directory, data, trials)
    assert (every.draws, every.value) == ({1: 1}, 1.0)


def test_nothing_is_proposed_where_one_trial_is_as_good(directory, data, write):
    trials = [write(0, [0, 1]), write(1, [0, 1]), write(2, [1])]
    assert len(kept(directory, data, trials)) == 3
    assert propose(directory, data, trials) is None
    assert propose(directory, data, trials[:1]) is None
    assert reachable(directory, data, []) is None


def test_a_damaged_model_is_no_member(directory, data, write):
    trials = [write(0, [0, 1]), write(1, [2, 3])]
    directory.model(1).write_bytes(b"no model")
    assert propose(directory, data, trials) is None
    assert reachable(directory, data, trials).value == 1.0
