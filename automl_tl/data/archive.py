"""Unpacks zip and tar archives of images, trusting nothing that they say.

Each archive is unpacked once, into a folder named after the hash of its content, written aside and
renamed; what a killed process left aside goes when the next archive is unpacked. Absolute paths,
``..``, links and device files are refused, not skipped: an archive that has them is no ordinary
archive of images.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from filelock import FileLock, Timeout

from automl_tl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from filelock import BaseFileLock

MAX_MEMBERS = 2_000_000
MAX_BYTES = 50 * 10**9
MAX_RATIO = 200
"""More bytes than this for one byte of archive are taken for a bomb, from ``_FREE_BYTES`` on."""

_FREE_BYTES = 10**8
_PARTIAL = ".partial-"
_BLOCK = 1 << 20
_STEP = 1 << 16
_MAX_HEADER = 1 << 20
_SUFFIXES = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|(tar\.)?(gz|bz2|xz))$", re.IGNORECASE)
_ENCRYPTED = 0x1
_COMPRESSED: Mapping[bytes, Callable[[Path, Literal["rb"]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"]\0\0": lzma.open,
}
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


def is_archive(path: Path) -> bool:
    """Tell by its content whether a file is a zip or a (compressed) tar archive, sound or not."""
    try:
        if zipfile.is_zipfile(path):
            return True
        with _decompressed(path) as stream:
            block = stream.read(tarfile.BLOCKSIZE)
        if block != bytes(tarfile.BLOCKSIZE):  # which ends an archive, be it empty
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    except _DAMAGE:
        return True
    except OSError as error:
        if error.errno is not None:
            raise
        return False
    return True


def stem(archive: Path) -> str:
    """Return an archive's name without its suffixes."""
    return _SUFFIXES.sub("", archive.name) or archive.name


def extract(archive: Path, destination_root: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack an archive, or find it unpacked already.

    Args:
        archive: A zip file, or a tar file, plain or compressed with gzip, bzip2 or xz.
        destination_root: Where the archive's folder ``<name>-<hash>`` is created.
        max_bytes: Bound on what the files add up to.

    Returns:
        The folder with the archive's files.

    Raises:
        DataError: The archive is damaged, encrypted, unsafe or too large, or cannot be written.
    """
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        place = destination_root / f"{stem(archive)}-{digest[:16]}"
        if not place.is_dir():
            destination_root.mkdir(parents=True, exist_ok=True)
            _sweep(destination_root)
            with _aside(destination_root) as aside:
                _unpack(archive, aside, max_bytes)
                _put_in_place(aside, place)
    except OSError as error:
        raise DataError(
            f"The archive {archive} cannot be unpacked below {destination_root} "
            f"({error.strerror or error}): make room, or unpack it yourself and name the folder."
        ) from None
    return place


@contextmanager
def _aside(root: Path) -> Iterator[Path]:
    """Give a folder whose lock is held as long as somebody fills it."""
    folder = root / f"{_PARTIAL}{uuid.uuid4().hex}"
    lock = _lock_of(folder)
    with lock:
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    """Delete what processes that were killed left half unpacked."""
    for folder in root.glob(f"{_PARTIAL}*"):
        if folder.is_dir():
            lock = _lock_of(folder)
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> BaseFileLock:
    return FileLock(f"{folder}.lock")


def _put_in_place(aside: Path, place: Path) -> None:
    try:
        aside.rename(place)
    except OSError:
        if not place.is_dir():  # else another process was first
            raise


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    is_zip = zipfile.is_zipfile(archive)
    members = _zip_members(archive) if is_zip else _tar_members(archive, max_bytes)
    total = 0
    try:
        for name, content in members:
            target = folder / _safe(name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                while block := content.read(_BLOCK):
                    total += len(block)
                    _check_size(archive, total, max_bytes)
                    out.write(block)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; gzip and bzip2 raise an OSError without a number
        raise DataError(
            f"The archive {archive} is damaged ({error}): copy or download it again."
        ) from None
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"The archive {archive} cannot be read ({error}): unpack it yourself and name the "
            "folder."
        ) from None


def _check_count(archive: Path, members: int) -> None:
    if members > MAX_MEMBERS:
        raise DataError(f"The archive {archive} has more than {MAX_MEMBERS:,} files and folders.")


def _check_size(archive: Path, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise DataError(
            f"The archive {archive} unpacks to more than {max_bytes:,} bytes: unpack it yourself "
            "and name the folder."
        )
    if total > _FREE_BYTES and total > MAX_RATIO * archive.stat().st_size:
        raise DataError(
            f"The archive {archive} unpacks to more than {MAX_RATIO} times its size, which images "
            "never do: it looks like a decompression bomb."
        )


def _safe(name: str, archive: Path) -> PurePosixPath:
    """Return a member's path below the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts:
        raise DataError(
            f"The archive {archive} has the member {name!r}, which points outside of it: expected "
            "relative paths only."
        )
    return path


def _refuse(archive: Path, name: str, what: str) -> DataError:
    return DataError(
        f"The archive {archive} has the member {name!r}, which is {what}: expected files and "
        "folders only."
    )


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check_count(archive, len(members))
        for member in members:
            _safe(member.filename, archive)
            if member.flag_bits & _ENCRYPTED:
                raise DataError(
                    f"The archive {archive} is encrypted (member {member.filename!r}): unpack it "
                    "yourself and name the folder."
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise _refuse(archive, member.filename, "a link")
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _refuse(archive, member.filename, "a device or another special file")
        for member in members:
            if not member.is_dir():
                with file.open(member) as content:
                    yield member.filename, content


class _Counted:
    """The bytes of a tar archive, counted and bounded as ``tarfile`` reads them.

    Only so many as were announced are read: ``tarfile`` holds all that stands before a member, as
    long names do, in memory.
    """

    def __init__(self, archive: Path, stream: IO[bytes], max_bytes: int) -> None:
        self._archive = archive
        self._stream = stream
        self._max_bytes = max_bytes
        self._total = 0
        self.announce(0)

    def announce(self, content: int) -> None:
        """Expect a member's content, and what stands before the next one."""
        self._expected = self._total + content + _MAX_HEADER

    def read(self, size: int) -> bytes:
        block: bytes = self._stream.read1(size)  # type: ignore[attr-defined]
        self._total += len(block)
        _check_size(self._archive, self._total, self._max_bytes)
        if self._total > self._expected:
            raise DataError(
                f"The archive {self._archive} has more than {_MAX_HEADER:,} bytes before a member, "
                "where its name belongs: it looks like a decompression bomb."
            )
        return block


def _decompressed(archive: Path) -> IO[bytes]:
    """Open what a tar archive is, compressed or not, for reading."""
    with archive.open("rb") as file:
        magic = file.read(6)
    openers = (opener for start, opener in _COMPRESSED.items() if magic.startswith(start))
    opened: IO[bytes] = next(openers, open)(archive, "rb")
    return opened


def _tar_members(archive: Path, max_bytes: int) -> Iterator[tuple[str, IO[bytes]]]:
    with _decompressed(archive) as stream:
        counted = _Counted(archive, stream, max_bytes)
        readable = cast("IO[bytes]", counted)  # as far as a stream is read
        with tarfile.open(None, "r|", readable, _STEP) as file:
            for count, member in enumerate(iter(file.next, None), 1):
                _check_count(archive, count)
                file.members = []  # type: ignore[attr-defined]  # else all stay in memory
                file.pax_headers = {}
                if member.isdir():
                    if PurePosixPath(member.name).parts:  # "./" is the folder itself
                        _safe(member.name, archive)
                    counted.announce(0)
                    continue
                if member.issym() or member.islnk():
                    raise _refuse(archive, member.name, "a link")
                if not member.isreg() or member.issparse():
                    raise _refuse(archive, member.name, "a device or another special file")
                counted.announce(member.size)
                content = file.extractfile(member)
                if content is not None:
                    with content:
                        yield member.name, content
