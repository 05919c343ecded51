from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from automl_tl import study
from automl_tl.cli import studies
from automl_tl.errors import UsageError


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("photos/flowers", "flowers"),
        ("photos/My flowers/", "My-flowers"),
        ("photos/flowers.tar.gz", "flowers"),
        ("photos/flowers.v2.zip", "flowers.v2"),
        ("labels.CSV", "labels"),
        ("torchvision/Flowers102", "Flowers102"),
        ("photos/Blüten", "Blüten"),
        ("photos/???", "study"),
    ],
)
def test_default_name(data: str, name: str) -> None:
    assert studies.default_name(data) == name


def test_default_name_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert studies.default_name(".") == "pets"


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert studies.directory("flowers") == Path("studies/flowers")
    assert studies.directory("./flowers") == Path("flowers")
    assert studies.directory(str(tmp_path / "x")) == tmp_path / "x"
    for wrong in ("", " ", "a\0b"):
        with pytest.raises(UsageError, match="study's name or path"):
            studies.directory(wrong)


def test_existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"start one with `automl-tl search DATA`"):
        studies.existing("flowers")
    for folder in ("studies/flowers", "elsewhere"):
        Path(folder).mkdir(parents=True)
        Path(folder, "study.toml").touch()
    assert studies.existing("flowers") == Path("studies/flowers")
    assert studies.existing("elsewhere") == Path("elsewhere")
    with pytest.raises(UsageError, match="did you mean flowers"):
        studies.existing("flower")
    with pytest.raises(UsageError, match="there is flowers"):
        studies.existing("zzz")


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("studies/flowers", "flowers"),
        ("studies/my flowers", "'my flowers'"),
        ("demo/digits", "demo/digits"),
        ("flowers", "./flowers"),
        ("/data/flowers", "/data/flowers"),
    ],
)
def test_reference_names_the_study_again(
    path: str, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert study.reference(Path(path)) == study.reference(Path(path).absolute()) == reference
    assert studies.directory(shlex.split(reference)[0]).absolute() == Path(path).absolute()
