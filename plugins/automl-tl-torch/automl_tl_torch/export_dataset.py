"""Has torchvision download one of its sets, and writes it as image files and a table.

Run as ``python -m automl_tl_torch.export_dataset NAME FOLDER``; ``automl_tl_torch.datasets`` does.
Exits with 1, and the reason as the last line on standard output, when that fails; and as soon as
its standard input ends.

Nothing that was downloaded is unpickled: CIFAR is read from its binary form, by ``cifar``.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.downloads import reason
from automl_tl.files import write_text
from automl_tl_torch import cifar
from automl_tl_torch.datasets import DOWNLOADS, SETS, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from automl_tl.types import Split
    from automl_tl_torch.datasets import TorchvisionSet

    Row = tuple[Path, str, Split | None]

_TIMEOUT = 30.0


def export(one: TorchvisionSet, folder: Path) -> None:
    """Write a set; ``index.csv`` comes last.

    Image files stay as torchvision unpacked them; pictures in arrays become PNG files below
    ``images/SPLIT``. Archives are deleted once they are read.

    Args:
        one: The set.
        folder: Where to write; ``download`` in it may hold the set's archives already.

    Raises:
        OSError, RuntimeError: It cannot be downloaded, is damaged, or cannot be written.
    """
    downloads = folder / DOWNLOADS
    _keep_only(downloads, {downloads / file for file in one.files})
    shutil.rmtree(folder / "images", ignore_errors=True)
    rows = list(_rows(one, folder))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    for path, label, split in rows:
        writer.writerow((path.relative_to(folder).as_posix(), label, split or ""))
    if any(path.is_relative_to(downloads) for path, _, _ in rows):
        for file in one.files:
            (downloads / file).unlink(missing_ok=True)
    else:
        shutil.rmtree(downloads)
    write_text(folder / TABLE, text.getvalue())


def _keep_only(folder: Path, files: set[Path]) -> None:
    """Delete what an attempt that was killed unpacked: torchvision takes half of it for all."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in files:
            path.unlink()


def _rows(one: TorchvisionSet, folder: Path) -> Iterator[Row]:
    if one.name in cifar.SETS:
        for split, pictures in cifar.read(one.name, folder / DOWNLOADS).items():
            yield from _written(folder, split, pictures)
        return
    splits: Any = one.splits or {None: {}}
    for split, arguments in splits.items():
        dataset = _open(one, folder / DOWNLOADS, arguments)
        if one.loads or one.paths:
            yield from _files(one, dataset, split)
        else:
            yield from _written(folder, split, _labelled(dataset))


def _open(one: TorchvisionSet, root: Path, arguments: dict[str, Any]) -> Any:
    from automl_tl_torch.vision import torchvision

    root.mkdir(parents=True, exist_ok=True)
    loader = {"loader": Path} if one.loads else {}
    dataset = getattr(torchvision.datasets, one.name)
    return dataset(str(root), download=True, **loader, **arguments)


def _files(one: TorchvisionSet, dataset: Any, split: Split | None) -> Iterator[Row]:
    if one.paths:  # private, but the public way decodes every photograph
        paths = getattr(dataset, one.paths)
        for path, label in zip(paths, dataset._labels, strict=True):
            yield Path(path), dataset.classes[label], split
        return
    for index in range(len(dataset)):
        path, label = dataset[index]
        yield path, _title(dataset, label), split


def _labelled(dataset: Any) -> Iterator[tuple[Image.Image, str]]:
    for index in range(len(dataset)):
        image, label = dataset[index]
        yield image, _title(dataset, label)


def _title(dataset: Any, label: int) -> str:
    """Return a class's name: the first of several, or its number where it has none."""
    classes = getattr(dataset, "classes", None)
    if not classes:
        return f"{label:02d}"
    name = classes[label]
    return str(name if isinstance(name, str) else name[0])


def _written(
    folder: Path, split: Split | None, pictures: Iterator[tuple[Image.Image, str]]
) -> Iterator[Row]:
    place = folder / "images" / (split or "all")
    place.mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(pictures):
        path = place / f"{number:05d}.png"
        image.save(path)
        yield path, label, split


def _end_with_parent() -> None:
    """End this process, however busy it is, once the one that started it has gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Export the set that the command line names."""
    name, folder = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        export(next(one for one in SETS if one.name == name), Path(folder))
    except (OSError, RuntimeError) as error:
        text = reason(error) if isinstance(error, OSError) else str(error)
        print(" ".join(text.split()).rstrip(".") or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
