"""What lies beside images and is none is passed over; what claims to be one is not."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from PIL import Image

from automl_tl.data.stray import is_stray
from automl_tl.predict import find_images

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_only_strays_are_strays(tmp_path: Path) -> None:
    strays = {
        "readme.md": b"# Photos\n",
        "labels.csv": b"path,label\n",
        "notes.txt": b"",
        "model.onnx": b"\x08\x0a" + bytes(100),
        "film.mp4": b"\0\0\0\x20ftypisom" + bytes(100),
        "photos.zip": b"PK\x03\x04" + bytes(100),
    }
    pictures = {
        "broken.JPG": b"an error page instead of a photo",
        "empty.png": b"",
        "cut.jpeg": b"\xff\xd8\xff\xe0",
        "phone": b"\0\0\0\x18ftypheic" + bytes(100),
        "IMG.HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
    }
    for name, data in (strays | pictures).items():
        (tmp_path / name).write_bytes(data)
    Image.new("RGB", (9, 9)).save(tmp_path / "no suffix", "PNG")
    Image.new("RGB", (9, 9)).save(tmp_path / "odd.dat", "GIF")
    os.mkfifo(tmp_path / "pipe")
    found = {path.name for path in tmp_path.iterdir() if not is_stray(path)}
    assert found == {*pictures, "no suffix", "odd.dat"}
    assert {path.name for path in find_images([tmp_path])} == found


def test_a_stray_that_is_named_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert list(find_images([tmp_path / "notes.txt"])) == [tmp_path / "notes.txt"]
    assert list(find_images([tmp_path])) == [tmp_path], "a folder without any image says so"


def test_what_cannot_be_looked_at_is_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder whose names may be read, but not what they stand for."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    assert not is_stray(tmp_path / "photo")
