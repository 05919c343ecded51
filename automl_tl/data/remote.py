"""Named data sets that are one archive on a server: downloaded once, checked, unpacked, kept.

```
CACHE/datasets/NAME/
  FILE            the archive, while it is being unpacked; or put here by hand
  FILE.sha256     what it was when it was first downloaded, where no hash is published
  images/         what was in it
```
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from automl_tl.data import archive, sources
from automl_tl.downloads import fetch, reason
from automl_tl.errors import DataError
from automl_tl.files import write_text
from automl_tl.specs import dataset_folder

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.data.index import DataIndex


@dataclass(frozen=True, slots=True)
class RemoteArchive:
    """An archive on a server.

    Attributes:
        name: Of the data set.
        url: Where it is.
        sha256: Its published hash. None where none is published: then the hash of the first
            download is written down beside it, and any other file is refused from then on.
    """

    name: str
    url: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]


FLOWER_PHOTOS = RemoteArchive(
    "flower_photos",
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    # As in tensorflow/datasets, datasets/tf_flowers/checksums.tsv.
    "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
)
CATS_AND_DOGS = RemoteArchive(
    "cats_and_dogs_filtered",
    "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
)


def load(remote: RemoteArchive, cache_directory: Path) -> DataIndex:
    """Return the images of an archive; downloads and unpacks it the first time.

    An archive that a person put into ``dataset_folder`` is used instead of a download.

    Raises:
        DataError: It cannot be downloaded, is not the file that it should be, or cannot be
            unpacked.
    """
    place = dataset_folder(remote.name, cache_directory)
    images = place / "images"
    if not images.is_dir():
        try:
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / ".lock"):
                if not images.is_dir():
                    _unpack(remote, place, images)
        except OSError as error:
            raise DataError(
                f"{remote.name} cannot be unpacked into {place} ({error.strerror or error}): make "
                "room, or pass a local folder as DATA."
            ) from None
    return sources.unpacked(images, remote.name, remote.name)


def _unpack(remote: RemoteArchive, place: Path, images: Path) -> None:
    file = place / remote.file
    downloaded = not file.is_file()
    if downloaded:
        _download(remote, file)
    record = place / f"{remote.file}.sha256"
    try:
        digest = _check(remote, file, record)
        archive.extract(file, place).rename(images)
    except DataError:
        if downloaded:
            file.unlink()
        raise
    if remote.sha256 is None:
        write_text(record, f"{digest}\n")
    file.unlink()


def _download(remote: RemoteArchive, file: Path) -> None:
    try:
        for left in file.parent.glob(f".{file.name}.*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        fetch(remote.url, file)
    except OSError as error:
        raise DataError(
            f"{remote.name} cannot be downloaded from {remote.url} ({reason(error)}): put "
            f"{file.name} into {file.parent}, or pass a local folder of the images as DATA."
        ) from None


def _check(remote: RemoteArchive, file: Path, record: Path) -> str:
    """Return the hash of an archive that is what it should be, as far as that is known."""
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    expected, source = remote.sha256, "its publisher names"
    if expected is None and record.is_file():
        expected, source = record.read_text(encoding="utf-8").strip(), f"{record} remembers"
    if expected and found != expected:
        raise DataError(
            f"{file} is another file than expected: {source} the SHA-256 {expected}, got {found}; "
            "get the right file, or pass a local folder of the images as DATA."
        )
    return found
