"""Archives: the same data set as the folder, or a refusal."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from automl_tl.data import archive
from automl_tl.data.sources import open_data
from automl_tl.errors import DataError

WriteImage = Callable[..., Path]


def pack(folder: Path, target: Path, prefix: str = "") -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
            for path in files:
                out.write(path, prefix + path.relative_to(folder).as_posix())
    else:
        mode = {".tar": "w", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[target.suffix]
        with tarfile.open(target, mode) as out:
            for path in files:
                out.add(path, prefix + path.relative_to(folder).as_posix())
    return target


def tar_of(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    member.size = len(data)
    with tarfile.open(path, "w") as out:
        out.addfile(member, io.BytesIO(data))
    return path


def zip_of(path: Path, member: str | zipfile.ZipInfo, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(member, data)
    return path


def failure(path: Path, tmp_path: Path, **options: int) -> str:
    root = tmp_path / "out"
    with pytest.raises(DataError) as error:
        archive.extract(path, root, **options)
    assert not list(root.iterdir()), "something was left behind"
    return str(error.value)


def test_what_a_killed_process_unpacked_goes_with_the_next_archive(
    classes_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    script = """
import os, signal, sys
from pathlib import Path
from automl_tl.data import archive
archive._put_in_place = lambda aside, place: os.kill(os.getpid(), signal.SIGKILL)
archive.extract(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    first = pack(classes_folder, tmp_path / "first.zip")
    code = subprocess.run([sys.executable, "-c", script, str(first), str(root)]).returncode
    assert code < 0
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1
    place = archive.extract(pack(classes_folder, tmp_path / "second.tar"), root)
    assert list(root.iterdir()) == [place]


def test_what_another_process_unpacks_stays(classes_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    with archive._aside(root) as aside:
        (aside / "half").write_text("done")
        archive.extract(pack(classes_folder, tmp_path / "pets.zip"), root)
        assert (aside / "half").read_text() == "done"
    assert not aside.exists()


@pytest.mark.parametrize("prefix", ["", "pets/", "./"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_the_folder_it_holds(
    suffix: str, prefix: str, classes_folder: Path, tmp_path: Path
) -> None:
    packed = pack(classes_folder, tmp_path / f"my pets.{suffix}", prefix)
    index = open_data(str(packed), tmp_path / "cache", {})
    folder = open_data(str(classes_folder), tmp_path / "cache", {})
    assert index.name == "my-pets"
    assert index.source == str(packed)
    assert index.classes == folder.classes
    assert [(i.name, i.label) for i in index.items] == [(i.name, i.label) for i in folder.items]
    assert [i.path.read_bytes() for i in index.items] == [i.path.read_bytes() for i in folder.items]


@pytest.mark.parametrize("prefix", ["a/b/", "a/b/c/"])
def test_an_archive_whose_classes_lie_deeper_is_refused_by_the_path_inside(
    prefix: str, classes_folder: Path, tmp_path: Path
) -> None:
    packed = pack(classes_folder, tmp_path / "pets.zip", prefix)
    with pytest.raises(DataError) as error:
        open_data(str(packed), tmp_path / "cache", {})
    assert str(error.value) == (
        f"Expected images of at least two classes in {packed}, found only the folder "
        f"'{prefix[:-1]}' with 2 folders inside: unpack it and name that folder."
    )


def test_an_archive_is_unpacked_once(classes_folder: Path, tmp_path: Path) -> None:
    packed = pack(classes_folder, tmp_path / "pets.zip")
    first = archive.extract(packed, tmp_path / "out")
    (first / "mark").touch()
    assert archive.extract(packed, tmp_path / "out") == first
    assert (first / "mark").exists()
    packed = pack(classes_folder / "cat", tmp_path / "pets.zip")
    assert archive.extract(packed, tmp_path / "out") != first


def test_split_folders_and_tables_inside(
    classes_folder: Path, tmp_path: Path, write_image: WriteImage
) -> None:
    for label in ("a", "b"):
        write_image(tmp_path / "split" / "train" / label / "x.png", 1)
    index = open_data(str(pack(tmp_path / "split", tmp_path / "s.tar")), tmp_path / "cache", {})
    assert {item.split for item in index.items} == {"train"}
    table = classes_folder / "labels.csv"
    table.write_text("path,label\ncat/0.png,x\ndog/5.png,y\n")
    for prefix in ("", "top/"):
        packed = pack(classes_folder, tmp_path / "c.zip", prefix)
        assert open_data(str(packed), tmp_path / "cache", {}).classes == ("x", "y")
    table.write_text("path,label\n/etc/hostname,x\ndog/5.png,y\n")
    with pytest.raises(DataError, match="inside the archive"):
        open_data(str(pack(classes_folder, tmp_path / "d.zip")), tmp_path / "cache", {})
    table.write_text("path,label\n../x,x\ndog/5.png,y\n")
    with pytest.raises(DataError, match="leads out"):
        open_data(str(pack(classes_folder, tmp_path / "d.zip")), tmp_path / "cache", {})


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_paths_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    for path in (
        zip_of(tmp_path / "x.zip", name),
        tar_of(tmp_path / "x.tar", tarfile.TarInfo(name), b"x"),
    ):
        message = failure(path, tmp_path)
        assert repr(name) in message and "outside" in message
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused_by_name(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/link")
    member.type, member.linkname = kind, "a/target"
    assert "'a/link', which is a link" in failure(tar_of(tmp_path / "x.tar", member), tmp_path)


def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path) -> None:
    for kind, word in ((stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device")):
        member = zipfile.ZipInfo("a/odd")
        member.external_attr = (kind | 0o777) << 16
        message = failure(zip_of(tmp_path / "x.zip", member, b"/etc"), tmp_path)
        assert f"'a/odd', which is {word}" in message


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
def test_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/device")
    member.type = kind
    assert "a device" in failure(tar_of(tmp_path / "x.tar", member), tmp_path)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "x.zip", "a/x", os.urandom(5000))
    assert "more than 4,000 bytes" in failure(path, tmp_path, max_bytes=4000)
    monkeypatch.setattr(archive, "_FREE_BYTES", 10**6)
    assert "bomb" in failure(zip_of(tmp_path / "b.zip", "a/x", bytes(5 * 10**6)), tmp_path)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as out:
        out.writestr("a", "1")
        out.writestr("b", "2")
    assert "more than 1 files" in failure(tmp_path / "m.zip", tmp_path)


def test_what_stands_before_members_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header of 1 GiB, and folders without end, take little of an archive."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    folder = tarfile.TarInfo("d/")
    folder.type = tarfile.DIRTYPE
    pax, folders = tmp_path / "pax.tar.gz", tmp_path / "folders.tar.xz"
    with gzip.open(pax, "wb", 1) as out:
        out.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            out.write(bytes(1 << 20))
    with lzma.open(folders, "wb", preset=0) as out:
        out.write(folder.tobuf(tarfile.USTAR_FORMAT) * 20_000)
    tracemalloc.start()
    assert archive.is_archive(pax)
    assert "more than 1,048,576 bytes before a member" in failure(pax, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.reset_peak()
    monkeypatch.setattr(archive, "_FREE_BYTES", 10**7)
    assert "bomb" in failure(folders, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1000)
    assert "more than 1,000 files and folders" in failure(folders, tmp_path)


def test_long_names_are_no_bombs(tmp_path: Path, write_image: WriteImage) -> None:
    name = "/".join(["ünïcode" * 12] * 5)
    for label in "ab":
        write_image(tmp_path / "in" / label / name / "x.png", 1)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as out:
            out.add(tmp_path / "in", ".")
        index = open_data(str(tmp_path / "x.tar"), tmp_path / "cache", {})
        assert [item.name for item in index.items] == [f"{c}/{name}/x.png" for c in "ab"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    for number, content in enumerate(
        (b"text", bytes(100), b"BZh text", b"\x1f\x8b more text", gzip.compress(b"text" * 500))
    ):
        (tmp_path / str(number)).write_bytes(content)
        assert not archive.is_archive(tmp_path / str(number))
    tarfile.open(tmp_path / "empty.tar", "w").close()
    assert archive.is_archive(tmp_path / "empty.tar")


def test_an_encrypted_zip_gets_a_sentence(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "a/x")
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted" in failure(path, tmp_path)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_damaged_archives(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(os.urandom(200_000))
    path = pack(tmp_path / "in", tmp_path / f"x.{suffix}")
    data = path.read_bytes()
    if suffix == "zip":
        broken = data[:5000] + bytes(1000) + data[6000:]
    else:
        broken = data[: len(data) // 2]
    path.write_bytes(broken)
    assert "damaged" in failure(path, tmp_path)
