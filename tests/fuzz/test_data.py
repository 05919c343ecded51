from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl_tl.data import archive, sources
from tests.fuzz.mutations import fuzzed, mutated, read

if TYPE_CHECKING:
    from tests.fuzz.conftest import Fresh


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _picture()
NAMES = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")


def packed() -> list[bytes]:
    """The same four pictures as zip archives and tar archives."""
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            for name in NAMES:
                file.writestr(name, PICTURE)
        made.append(buffer.getvalue())
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as file:
            for name in NAMES:
                member = tarfile.TarInfo(name)
                member.size = len(PICTURE)
                file.addfile(member, io.BytesIO(PICTURE))
        made.append(buffer.getvalue())
    return made


ARCHIVES = packed()
TABLE = b"path,label,split\na.png,cat,train\nb.png,dog,validation\nc.png,dog,\n"
TABLES = [
    TABLE,
    b"\xef\xbb\xbf" + TABLE.replace(b",", b";").replace(b"\n", b"\r\n"),
    b'label\tpath\n"c\tat"\t"a.png"\ndog\tb.png\n',
]
PIECES = (
    "a",
    "..",
    ".",
    "/",
    "\\",
    "C:",
    "~",
    "$HOME",
    "\0",
    "\n",
    "\u202e",
    "ü",
    "図",
    " ",
    "CON",
)
paths = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@fuzzed
@given(data=mutated(ARCHIVES))
def test_an_archive_stays_in_its_folder(fresh: Fresh, data: bytes) -> None:
    here = fresh()
    file = here / "a.zip"
    file.write_bytes(data)
    if archive.is_archive(file):
        read(archive.extract, file, here / "out")
    _assert_only(here, {"a.zip", "out"})


@fuzzed
@given(
    names=st.lists(paths, min_size=1, max_size=4),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
    target=paths,
    zipped=st.booleans(),
)
def test_no_name_leads_out_of_an_archive(
    fresh: Fresh, names: list[str], kind: bytes, target: str, zipped: bool
) -> None:
    here = fresh()
    file = here / "a.zip"
    if zipped:
        with zipfile.ZipFile(file, "w") as packed_file:
            for name in names:
                packed_file.writestr(zipfile.ZipInfo(name), PICTURE)
    else:
        with tarfile.open(file, "w") as tar:
            for number, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.type = kind if number % 2 == 0 else tarfile.REGTYPE
                member.linkname = target
                member.size = len(PICTURE) if member.isreg() else 0
                tar.addfile(member, io.BytesIO(PICTURE))
    if archive.is_archive(file):
        read(archive.extract, file, here / "out")
    _assert_only(here, {"a.zip", "out"})
    for found in here.rglob("*"):
        assert not found.is_symlink()


def _assert_only(folder: Path, names: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} <= names
    assert not list(folder.parent.glob("*.png"))


@fuzzed
@given(data=mutated(TABLES))
def test_a_table_is_read_or_refused(fresh: Fresh, data: bytes) -> None:
    here = fresh()
    (here / "a.csv").write_bytes(data)
    for name in ("a.png", "b.png", "c.png"):
        (here / name).write_bytes(PICTURE)
    read(sources.open_data, str(here / "a.csv"), here / "cache", {})


@fuzzed
@given(rows=st.lists(st.tuples(paths, st.text(max_size=5)), min_size=1, max_size=5))
def test_any_path_and_class_in_a_table(fresh: Fresh, rows: list[tuple[str, str]]) -> None:
    here = fresh()
    (here / "a.png").write_bytes(PICTURE)
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    text = "\n".join(["path,label", "a.png,cat", *lines])
    (here / "a.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    index = read(sources.open_data, str(here / "a.csv"), here / "cache", {})
    for item in index.items if index else ():
        relative = not Path(item.name).is_absolute()
        place = Path(os.path.normpath(item.path))
        assert not relative or here in (place, *place.parents)


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist there")
@fuzzed
@given(names=st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=4))
def test_any_file_name(fresh: Fresh, names: list[bytes]) -> None:
    here = fresh()
    for number, name in enumerate(names):
        if set(name) & set(b"/\0") or name in {b".", b".."}:
            continue
        folder = os.path.join(os.fsencode(here), name)
        os.makedirs(folder, exist_ok=True)
        for other in range(2):
            with open(os.path.join(folder, b"%d.png" % other), "wb") as file:
                file.write(PICTURE + bytes([number, other]))
    index = read(sources.open_data, str(here), here / "cache", {})
    if index:
        "".join(index.classes).encode()
