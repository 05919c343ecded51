"""What a study in a database tells the machines that join it."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import optuna
import pytest

from automl_tl.errors import StudyError
from automl_tl.published import (
    Published,
    publish,
    publish_bounds,
    published_bounds,
    read_published,
)
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData


def _published(images: int = 3) -> Published:
    hashes = [np.random.default_rng(i).bytes(32).hex() for i in range(images)]
    data = StudyData(
        classes=("a,b", 'c"d'),
        names=tuple(f"image\n{i}.png" for i in range(images)),
        labels=np.arange(images) % 2,
        splits=tuple((None, "train", "test")[i % 3] for i in range(images)),
        hashes=tuple(hashes),
        dataset_hash="all",
        facts={"median_side": 8},
    )
    config = Config(
        "s",
        "/home/me/photos",
        ("torch/tiny",),
        {"torch/tiny": "/w"},
        {"dropout": [0.1, 0.2]},
        storage="postgresql://me:secret@host/x",
        plugins=("/home/me/net.py",),
        artifacts="/shared",
    )
    return Published(config, data, {"torch/tiny": "abc"})


@pytest.mark.parametrize("images", [3, 5000])
def test_what_is_published_is_read(images: int) -> None:
    study = optuna.create_study(study_name="s")
    wanted = _published(images)
    publish(study, wanted)
    found = read_published(study)
    assert found is not None
    for name in ("classes", "names", "splits", "hashes", "dataset_hash", "facts"):
        assert getattr(found.data, name) == getattr(wanted.data, name), name
    assert found.data.labels.tolist() == wanted.data.labels.tolist()
    assert found.weights == wanted.weights
    assert (found.config.settings, found.config.artifacts) == ({"dropout": [0.1, 0.2]}, "/shared")
    assert (found.config.data, found.config.storage, found.config.plugins) == ("", None, ())
    assert "secret" not in str(study.user_attrs)
    assert max(len(str(part)) for part in study.user_attrs.values()) < 2**16  # MySQL's TEXT


def test_nothing_is_read_before_all_of_it_is_there() -> None:
    study = optuna.create_study()
    assert read_published(study) is None
    study.set_user_attr("automl_tl:part:0", "half")
    assert read_published(study) is None


def _packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    "part",
    [
        "%%%",
        base64.b64encode(b"no zlib").decode(),
        _packed(b"{}"),
        _packed(b"[1"),
        _packed(b"7"),
        5,
    ],
)
def test_damage_is_one_sentence(part: object) -> None:
    study = optuna.create_study(study_name="s")
    study.set_user_attr("automl_tl:part:0", part)
    study.set_user_attr("automl_tl:parts", 1)
    with pytest.raises(StudyError, match="What the study 's' published is damaged"):
        read_published(study)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_tl.published._MAX_BYTES", 1000)
    study = optuna.create_study()
    publish(study, _published(100))
    with pytest.raises(StudyError, match="too long"):
        read_published(study)


def test_the_first_bounds_are_the_studys() -> None:
    study = optuna.create_study()
    assert published_bounds(study, "accuracy") == {}
    publish_bounds(study, {"trials": 5})
    publish_bounds(study, {"trials": 9})
    assert published_bounds(study, "accuracy") == {"trials": 5}
