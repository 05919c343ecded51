"""What a worker deletes in a study directory, which may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData

if TYPE_CHECKING:
    from pathlib import Path

HEX = "0123456789abcdef" * 2


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    data = StudyData(("a",), (), np.array([], np.int64), (), (), "none", {})
    return StudyDirectory.create(tmp_path / "s", Config("s", "x", ()), data)


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_half_written_goes_and_what_is_not_ours_stays(study: StudyDirectory) -> None:
    ours = (
        f".validation_logits.npy.{HEX}.npy",
        f".test_logits.npy.{HEX}.npy",
        f".head.safetensors.{HEX}.safetensors",
        f".history.json.{HEX}.json",
        f".model.crc32.{HEX}.crc32",
        f".model.safetensors.{HEX}.safetensors",
    )
    others = {".DS_Store", "._model.safetensors", ".history.json.bak", f".notes.txt.{HEX}.txt"}
    for number in range(2):
        fill(study.trial(number), *ours, *others, "history.json")
        fill(study.trial(number) / ".ipynb_checkpoints", "notes.txt")
        (study.trial(number) / f".history.json.{HEX[::-1]}.json").mkdir()
    study.keep_models([1])
    left = {*others, "history.json", ".ipynb_checkpoints", f".history.json.{HEX[::-1]}.json"}
    assert names(study.trial(0)) == left
    assert names(study.trial(1)) == {*left, *ours}, "its trial may be at work"


def test_models_of_others_go_and_links_are_not_followed(
    study: StudyDirectory, tmp_path: Path
) -> None:
    model = ("model.safetensors", "model.crc32", f".model.safetensors.{HEX}.safetensors")
    victim = fill(tmp_path / "victim", *model)
    for number in range(2):
        fill(study.trial(number), *model)
    for number in (2, 3):
        study.trial(number).symlink_to(victim)
    study.keep_models([1, 2])
    assert names(study.trial(0)) == set()
    assert names(victim) == set(model)
    study.keep_models([1])  # better ones pushed out a model that lies elsewhere
    assert names(victim) == set(model)
    assert names(study.trial(1)) == set(model)


def test_a_folder_of_trials_that_is_a_link_is_left_alone(
    study: StudyDirectory, tmp_path: Path
) -> None:
    victim = fill(tmp_path / "victim" / "00000", "model.safetensors", f".{HEX}.safetensors")
    (study.path / "trials").rmdir()
    (study.path / "trials").symlink_to(victim.parent)
    study.keep_models([1])
    study.keep_models([0])
    study.keep_models([])
    assert len(names(victim)) == 2
