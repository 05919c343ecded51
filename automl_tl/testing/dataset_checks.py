"""Checks of a named data set, which is loaded in a process of its own."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.data.decode import decode
from automl_tl.errors import ImageError, PluginError, UsageError
from automl_tl.ipc import Child
from automl_tl.plugins import get_plugins
from automl_tl.testing.findings import Finding, reason, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.data.index import DataIndex

SECONDS = 300.0
"""What loading gets, a download among it."""
DECODED = 20
"""Images that are decoded, spread over the data set."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A data set as it was loaded, twice, with the same cache.

    Attributes:
        name: What it is called.
        subject: What findings call it.
        first: What was loaded with an empty cache.
        second: What was loaded in a new process, with the cache of the first.
    """

    name: str
    subject: str
    first: DataIndex
    second: DataIndex


@contextmanager
def loaded(name: str, seconds: float = SECONDS) -> Iterator[Loaded]:
    """Load a data set into a cache of its own, which is deleted at the end.

    Raises:
        UsageError: When there is no such data set.
        PluginError: When it cannot be loaded.
    """
    known = get_plugins().datasets
    if name not in known:
        raise UsageError(f"Unknown dataset {name!r}: there are {some(sorted(known), 8)}.")
    with tempfile.TemporaryDirectory(prefix="automl-tl-check-") as folder:
        first, second = (_load(name, Path(folder), seconds) for _ in range(2))
        yield Loaded(name, f"dataset {name}", first, second)


def check_classes(data: Loaded) -> Iterator[Finding]:
    """There are at least two classes, sorted, each with images."""
    classes = data.first.classes
    right = list(classes) == sorted(set(classes)) and len(classes) > 1
    yield Finding(
        data.subject, "classes", "two or more sorted names of classes", some(classes), right
    )
    counts = Counter(item.label for item in data.first.items)
    empty = [name for label, name in enumerate(classes) if not counts[label]]
    foreign = sorted(set(counts) - set(range(len(classes))))
    received = f"no image of {some(empty)}" if empty else f"{sum(counts.values())} images"
    if foreign:
        received = f"the labels {some(map(str, foreign))}"
    yield Finding(
        data.subject,
        "classes",
        f"labels from 0 to {len(classes) - 1}, each with images",
        received,
        not empty and not foreign,
    )


def check_items(data: Loaded) -> Iterator[Finding]:
    """Every image is a file with a name of its own; the names are sorted."""
    items = data.first.items
    names = [item.name for item in items]
    twice = [name for name, count in Counter(names).items() if count > 1]
    received = f"{some(twice)} more than once" if twice else f"{len(names)} names"
    yield Finding(
        data.subject,
        "items",
        "sorted names, each of one image",
        received if twice or names == sorted(names) else "names that are not sorted",
        names == sorted(names) and not twice,
    )
    missing = [str(item.path) for item in items if not item.path.is_file()]
    received = f"no file at {some(missing, 2)}" if missing else "that"
    yield Finding(data.subject, "items", "a file for every image", received, not missing)
    splits = {str(item.split) for item in items} - {"None", "train", "validation", "test"}
    yield Finding(
        data.subject,
        "items",
        "train, validation, test or None as split",
        some(sorted(splits)) if splits else "that",
        not splits,
    )


def check_images(data: Loaded) -> Iterator[Finding]:
    """Its images can be decoded."""
    items = data.first.items
    sample = items[:: max(1, len(items) // DECODED)]
    wrong = []
    for item in sample:
        try:
            decode(item.path.read_bytes(), 32, "squash")
        except (ImageError, OSError) as error:
            wrong.append(f"{item.name}: {reason(error)}")
    received = some(wrong, 2) if wrong else f"{len(sample)} that were tried"
    yield Finding(data.subject, "images", "images that can be decoded", received, not wrong)


def check_loaded_again(data: Loaded) -> Iterator[Finding]:
    """It is the same when it is loaded again."""
    same = data.first == data.second
    received = "that" if same else f"{len(data.second.items)} images that are not the same"
    yield Finding(data.subject, "loaded again", "the same images and classes", received, same)


def _load(name: str, folder: Path, seconds: float) -> DataIndex:
    child = Child("automl_tl.testing.dataset_loader", [name, str(folder)])
    try:
        kind, value = child.channel.receive(seconds)
    except TimeoutError:
        raise PluginError(f"the dataset {name} was not loaded within {seconds:g} s") from None
    except EOFError:
        raise PluginError(
            f"loading the dataset {name} ended the process: {child.ending()}"
        ) from None
    finally:
        child.close(0)
    if kind == "raise":
        raise PluginError(f"the dataset {name} cannot be loaded ({value})")
    return _index(value)


def _index(value: Any) -> DataIndex:
    from automl_tl.data.index import DataIndex

    if not isinstance(value, DataIndex):
        raise PluginError(f"expected a DataIndex from load, got {value!r:.80}")
    return value


DATASET_CHECKS: tuple[Callable[[Loaded], Iterator[Finding]], ...] = (
    check_classes,
    check_items,
    check_images,
    check_loaded_again,
)
