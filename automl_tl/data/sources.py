"""Finds the images of a data set: a folder, a CSV file, an archive of these, or a known name.

Files are taken by where they lie, never by suffix; the decoder judges their content later. Names
are sorted by code point, labels too, so that every system finds the same data set.
"""

from __future__ import annotations

import difflib
import os
import re
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.data import archive
from automl_tl.data.csv_source import has_columns, read_csv
from automl_tl.data.growing import growth
from automl_tl.data.index import SPLIT_NAMES, DataIndex, ImageItem
from automl_tl.downloads import in_background
from automl_tl.errors import DataError
from automl_tl.specs import dataset_folder
from automl_tl.stages import silent
from automl_tl.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from automl_tl.specs import DatasetSpec
    from automl_tl.stages import Stage
    from automl_tl.types import Split

_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_EXPECTED = (
    "a folder with a sub-folder of images per class, a CSV file with the columns path and label, "
    "a zip or tar archive of these, or the name of a data set"
)


def open_data(
    data: str,
    cache_directory: Path,
    datasets: Mapping[str, DatasetSpec],
    stage: Stage = silent,
    until: float = float("inf"),
) -> DataIndex:
    """Find a data set's images; reads no image.

    Args:
        data: A name in ``datasets``, which wins over a file of that name, or a path.
        cache_directory: Where archives and named data sets are unpacked.
        datasets: The named data sets.
        stage: Told how far the download of a named data set is.
        until: ``time.monotonic()`` at which that download is given up.

    Raises:
        DataError: There is no such data set, it cannot be downloaded, or it has no images of at
            least two classes.
    """
    if data in datasets:
        return _named(datasets[data], cache_directory, stage, until)
    path = Path(data).expanduser().absolute()
    try:
        if path.is_dir():
            return folder(path)
        if path.is_file():
            return _file(path, cache_directory)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from None
    close = difflib.get_close_matches(data, datasets, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"expected {_EXPECTED}"
    raise DataError(f"There is no {data!r}: {hint}{'?' if close else '.'}")


def folder(
    path: Path, name: str | None = None, source: str | None = None, root: Path | None = None
) -> DataIndex:
    """Index a folder of classes, or ``train/`` with optional ``val/`` and ``test/`` above classes.

    Args:
        path: The folder.
        name: The data set's name; the folder's by default.
        source: What the person typed; the folder's absolute path by default.
        root: Of the unpacked archive that the folder lies in, if it does.

    Raises:
        DataError: The folder does not hold images of at least two classes.
    """
    path = path.absolute()
    name = slug(name or path.resolve().name)
    source = source or str(path)
    folders, files = _list(path)
    if not folders:
        raise DataError(_no_classes(path, files))
    notes = []
    if files:
        count = plural(len(files), "file")
        notes.append(f"Left out, beside the class folders: {count} without a class.")
    found: dict[Split | None, dict[str, list[Path]]] = {}
    if splits := _split_folders(path, folders):
        for split, place in splits.items():
            found[split] = _classes(place, notes)
        _same_classes(path, found)
    else:
        found[None] = _classes(path, notes)
        place, inside = _unwrapped(path)
        if place != path and inside > 1:
            where = readable(place.relative_to(root or path).as_posix())
            raise DataError(
                f"Expected images of at least two classes in {source}, found only the folder "
                f"{where!r} with {inside} folders inside: "
                f"{'unpack it and name that folder.' if root else f'did you mean {place}?'}"
            )
    return build(name, source, _rows(path, found), notes)


def build(
    name: str,
    source: str,
    rows: Iterable[tuple[Path, str, str, Split | None]],
    notes: Iterable[str] = (),
) -> DataIndex:
    """Make an index of ``(path, name, class, split)`` rows.

    Raises:
        DataError: When there are not at least two classes.
    """
    rows = sorted(rows, key=lambda row: (row[1], row[2]))
    classes = sorted({row[2] for row in rows})
    if len(classes) < 2:
        came = f"only one, {classes[0]!r}" if classes else "none, no file at all"
        raise DataError(f"Expected images of at least two classes in {source}, found {came}.")
    labels = {label: index for index, label in enumerate(classes)}
    items = tuple(ImageItem(path, text, labels[label], split) for path, text, label, split in rows)
    return DataIndex(name, source, tuple(classes), items, tuple(notes))


def unpacked(place: Path, name: str, source: str) -> DataIndex:
    """Index an unpacked archive, looking through one folder that wraps everything.

    Args:
        place: Its folder.
        name: The data set's name.
        source: What the person typed.

    Raises:
        DataError: It does not hold images of at least two classes.
    """
    root = place = place.absolute()
    folders, files = _list(place)
    if len(folders) == 1 and not files and folders[0].name.lower() not in SPLIT_NAMES:
        inner_folders, inner_files = _list(folders[0])
        if inner_folders or any(has_columns(file) for file in inner_files):
            place, files = folders[0], inner_files
    tables = [file for file in files if file.suffix.lower() in {".csv", ".tsv"}]
    tables = [file for file in tables if has_columns(file)]
    if len(tables) == 1:
        return build(name, source, *read_csv(tables[0], confined=True))
    return folder(place, name, source, root)


def slug(text: str) -> str:
    """Return a name fit for a folder: letters, digits, ``_``, ``-`` and dots inside."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def readable(name: str) -> str:
    """Return a file name as valid, composed Unicode; bytes that are no UTF-8 are escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def _named(spec: DatasetSpec, cache_directory: Path, stage: Stage, until: float) -> DataIndex:
    if not spec.download_bytes:
        return spec.load(cache_directory)
    place = dataset_folder(spec.name, cache_directory)
    measure = growth(place, spec.name, spec.download_bytes)
    try:
        return in_background(lambda _: spec.load(cache_directory), measure, stage, until)
    except TimeoutError:
        if time.monotonic() < until:
            raise
        raise DataError(
            f"{spec.name} cannot be downloaded and unpacked in half of the time: give more with "
            "--time."
        ) from None


def _file(path: Path, cache_directory: Path) -> DataIndex:
    if path.stat().st_size and archive.is_archive(path):
        place = archive.extract(path, cache_directory / "archives")
        return unpacked(place, slug(archive.stem(path)), str(path))
    if path.suffix.lower() in {".csv", ".tsv"} or has_columns(path):
        return build(slug(path.stem), str(path), *read_csv(path))
    raise DataError(f"{path} is none of these: expected {_EXPECTED}.")


def _list(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible folders and regular files in a folder, sorted, links followed."""
    folders, files = [], []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                continue
            if entry.is_dir():
                folders.append(path / entry.name)
            elif entry.is_file():
                files.append(path / entry.name)
    return folders, files


def _unwrapped(path: Path) -> tuple[Path, int]:
    """Go down as long as a folder holds a single one; returns where, and how many are there."""
    visited: set[tuple[int, int]] = set()
    folders = [path]
    while len(folders) == 1 and _identity(folders[0]) not in visited:
        path = folders[0]
        visited.add(_identity(path))
        folders, _ = _list(path)
    return path, len(folders)


def _no_classes(path: Path, files: list[Path]) -> str:
    if not files:
        return f"The folder {path} is empty: expected a sub-folder of images per class."
    table = next((file for file in files if has_columns(file)), None)
    advice = f"or name the table: {table}" if table else "named after the class"
    return (
        f"The folder {path} holds {plural(len(files), 'file')} but no class folders: put the "
        f"images of each class into a sub-folder of its own, {advice}."
    )


def _split_folders(path: Path, folders: list[Path]) -> dict[Split, Path]:
    """Return the split folders, if that is what they are; ``train`` may be a class of vehicles."""
    splits: dict[Split, Path] = {}
    for place in folders:
        split = SPLIT_NAMES.get(place.name.lower())
        if split is None:
            return {}
        if split in splits:
            raise DataError(
                f"{path} has both {splits[split].name}/ and {place.name}/: keep one of them."
            )
        splits[split] = place
    has_classes = {split: bool(_list(place)[0]) for split, place in splits.items()}
    if "train" not in splits or not has_classes["train"]:
        return {}
    for split, place in splits.items():
        if not has_classes[split]:
            raise DataError(
                f"{place} has no class folders although {splits['train']} has: sort its images "
                "into the same classes, or move it elsewhere."
            )
    return splits


def _same_classes(path: Path, found: Mapping[Split | None, Mapping[str, list[Path]]]) -> None:
    train = set(found["train"])
    for split, classes in found.items():
        if different := sorted(train ^ set(classes)):
            listed = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
            raise DataError(
                f"The train and {split} folders of {path} must hold the same classes, but only "
                f"one of them has: {listed}."
            )


def _classes(path: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Return the files of each class folder; an empty one is noted."""
    folders, _ = _list(path)
    outside = {_identity(path), *map(_identity, folders)}
    classes: dict[str, list[Path]] = {}
    for place in folders:
        files = list(_walk(place, outside - {_identity(place)}, notes))
        if not files:
            notes.append(f"The class folder {readable(place.name)} is empty.")
        classes.setdefault(readable(place.name), []).extend(files)
    return classes


def _walk(path: Path, visited: set[tuple[int, int]], notes: list[str]) -> Iterator[Path]:
    """Yield the files below a folder; no folder is entered twice, however links wind."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        try:
            identity = _identity(place)
            if identity in visited:
                continue
            visited.add(identity)
            folders, files = _list(place)
        except OSError as error:
            notes.append(f"The folder {place} cannot be read ({error.strerror}).")
            continue
        waiting.extend(folders)
        yield from files


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _rows(
    root: Path, found: Mapping[Split | None, Mapping[str, list[Path]]]
) -> Iterator[tuple[Path, str, str, Split | None]]:
    for split, classes in found.items():
        for label, files in classes.items():
            for file in files:
                yield file, readable(file.relative_to(root).as_posix()), label, split
