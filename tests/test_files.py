"""Files that are written aside and renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from automl_tl.files import intended, left_aside, written_aside

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("model.safetensors", "net[1].pth", "plain", f"{'long' * 60}.h5")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_replaces_another_once_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with written_aside(path) as aside:
        assert aside.name.endswith(path.suffix)
        assert list(left_aside(path)) == []
        aside.write_text("new")
        assert list(left_aside(path)) == [aside]
        assert list(left_aside(tmp_path / "other.safetensors")) == []
        found = intended(aside.name)
        assert found and name.startswith(found)
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert intended(name) is intended(f".{name}") is None


@pytest.mark.parametrize("folder", [False, True])
def test_what_fails_leaves_nothing(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "saved_model"
    with pytest.raises(KeyboardInterrupt), written_aside(path) as aside:
        if folder:
            aside.mkdir()
        (aside / "part" if folder else aside).write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_its_place(tmp_path: Path) -> None:
    with written_aside(tmp_path / "saved_model") as aside:
        aside.mkdir()
        (aside / "part").write_text("whole")
    assert (tmp_path / "saved_model" / "part").read_text() == "whole"
