"""Trials' files for other machines, in a folder and in a bucket."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pytest

from automl_tl import recorded, storage
from automl_tl.artifacts import Artifacts, artifacts_absolute, bring
from automl_tl.errors import StudyError, UsageError
from automl_tl.facts import FACTS, FILES
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a local S3 server."""
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    patch = pytest.MonkeyPatch()
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="models")
    yield "s3://models/studies/one"
    server.stop()
    patch.undo()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        location: str = request.getfixturevalue("bucket")
        return location
    return str(tmp_path / "artifacts")


def _directory(path: Path, place: str) -> StudyDirectory:
    data = StudyData(("a",), (), np.array([], np.int64), (), (), "none", {})
    return StudyDirectory.create(path, Config("s", "x", (), artifacts=place), data)


def _trial(
    study: optuna.Study, here: StudyDirectory, value: float, files: dict[str, bytes]
) -> None:
    trial = study.ask()
    folder = here.trial(trial.number)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    known = Artifacts(str(here.config.artifacts)).put(trial, [folder / name for name in files])
    trial.set_user_attr(FACTS, {FILES: known})
    study.tell(trial, value)


def test_another_machine_gets_the_figures_of_all_and_the_models_of_the_best(
    tmp_path: Path, place: str
) -> None:
    here, there = _directory(tmp_path / "here", place), _directory(tmp_path / "there", place)
    study = optuna.create_study(direction="maximize")
    Artifacts(place).make()
    for number in range(5):
        files = {"head.safetensors": b"head %d" % number, "history.json": b"%d" % number}
        _trial(study, here, number / 10, files)
    dropped: set[str] = set()
    Artifacts(place).drop_models(storage.best_trials(study), dropped)
    assert len(dropped) == 2
    bring(there, study)
    for number in range(5):
        folder = there.trial(number)
        assert (folder / "history.json").read_bytes() == b"%d" % number
        assert (folder / "head.safetensors").exists() == (number >= 2)
    assert not list(there.path.rglob(".*"))
    (there.trial(4) / "head.safetensors").rename(there.trial(4) / "model.safetensors")
    bring(there, study)  # a head that became a whole model is not fetched again
    assert not (there.trial(4) / "head.safetensors").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    place = str(tmp_path / "artifacts")
    Artifacts(place).make()
    here, there = _directory(tmp_path / "here", place), _directory(tmp_path / "there", place)
    study = optuna.create_study(direction="maximize")
    _trial(study, here, 0.5, {"model.safetensors": b"weights"})
    (stored,) = Path(place).iterdir()
    stored.write_bytes(b"weighty")
    with pytest.raises(StudyError, match=r"model\.safetensors in .* is not what was put there"):
        bring(there, study)
    assert not list(there.trial(0).iterdir())


def test_a_trials_record_leads_out_of_no_folder(tmp_path: Path) -> None:
    place = str(tmp_path / "artifacts")
    Artifacts(place).make()
    there = _directory(tmp_path / "there", place)
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    (tmp_path / "secret").write_text("x")
    known = {"model.safetensors": {"id": "../secret", "sha256": "0"}}
    trial.set_user_attr(FACTS, {FILES: known})
    study.tell(trial, 0.5)
    with pytest.raises(StudyError, match="cannot be fetched"):
        bring(there, study)
    assert not list(there.trial(0).iterdir())


def test_only_what_optuna_names_is_deleted(tmp_path: Path, place: str) -> None:
    """Who writes a study says where its artifacts lie: that may be anybody's folder, or bucket."""
    store = Artifacts(place)
    store.make()
    precious = "precious.txt"
    if "://" in place:
        boto3 = pytest.importorskip("boto3").client("s3")
        kept = {"Bucket": "models", "Key": f"studies/one/{precious}"}
        boto3.put_object(Body=b"x", **kept)
    else:
        (Path(place) / precious).write_text("x")
    trial = optuna.trial.create_trial(
        value=0.5, user_attrs={FACTS: {FILES: {"model.safetensors": {"id": precious}}}}
    )
    store.drop_models([trial] * 4, set())
    if "://" in place:
        assert boto3.get_object(**kept)["Body"].read() == b"x"
    else:
        assert (Path(place) / precious).read_text() == "x"


def test_only_regular_files_are_fetched_and_deleted(tmp_path: Path) -> None:
    place = tmp_path / "artifacts"
    there = _directory(tmp_path / "there", str(place))
    store = Artifacts(str(place))
    store.make()
    (tmp_path / "secret").write_text("x")
    for make in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "secret"), Path.mkdir):
        name = str(uuid.uuid4())
        make(place / name)
        known = {FACTS: {FILES: {"model.safetensors": {"id": name, "sha256": "0"}}}}
        study = optuna.create_study(direction="maximize")
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs=known))
        with pytest.raises(StudyError, match=f"expected a file, got a link, .*{name}"):
            bring(there, study)
        store.drop_models(study.trials * 4, set())
        assert os.path.lexists(place / name)


@pytest.mark.parametrize(
    "name", ["precious.txt", "../x", "CCA38F92-F80E-455D-AFD2-DF96DA3337F9", 7, None]
)
def test_a_record_of_another_file_is_damaged(name: object) -> None:
    known = {"id": name, "sha256": "0"}
    assert not recorded._files({"model.safetensors": known})
    assert recorded._files({"model.safetensors": {**known, "id": str(uuid.uuid4())}})


@pytest.mark.parametrize("place", ["s3://", "http://host/x"])
def test_a_place_that_is_none(place: str) -> None:
    with pytest.raises(UsageError, match="Expected --artifacts"):
        Artifacts(place)


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(UsageError, match="--artifacts s3://other cannot be written"):
        Artifacts("s3://other").check()


def test_a_folder_that_is_not_there_is_not_made_but_by_who_begins(tmp_path: Path) -> None:
    place = tmp_path / "not" / "mounted"
    with pytest.raises(UsageError, match="is not on this machine: mount the one"):
        Artifacts(str(place)).check()
    there = _directory(tmp_path / "there", str(place))
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    known = {"history.json": {"id": str(uuid.uuid4()), "sha256": "0"}}
    trial.set_user_attr(FACTS, {FILES: known})
    study.tell(trial, 0.5)
    bring(there, study)  # shows what is here
    assert not place.exists()
    (tmp_path / "not").write_text("")
    with pytest.raises(UsageError, match=r"cannot be made \(Not a directory\)"):
        Artifacts(str(place)).make()


def test_a_folder_is_found_from_everywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifacts_absolute("files") == str(tmp_path / "files")
    assert artifacts_absolute("s3://models") == "s3://models"
    assert artifacts_absolute(None) is None
