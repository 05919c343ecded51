"""The output of any layer of a network for every image of a data set, as one ``.npz`` file."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from automl_tl.cache import pixels
from automl_tl.cache.activations import Activations, Reuse
from automl_tl.cache.store import Store
from automl_tl.data.sources import open_data
from automl_tl.errors import CacheError, DataError, UsageError
from automl_tl.files import written_aside
from automl_tl.host import BackendHost
from automl_tl.network_layers import layer_index, one_backbone
from automl_tl.networks import check_size, describe, input_id, network_spec, weights_file
from automl_tl.planner import Tap
from automl_tl.plugins import get_plugins
from automl_tl.stages import silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from automl_tl.cache.activations import NeedPixels, Step
    from automl_tl.data.decode import Resize
    from automl_tl.data.index import DataIndex
    from automl_tl.stages import Stage
    from automl_tl.types import EpochReport, NetworkInfo, NetworkSpec, Source, Split

SUFFIX = ".npz"


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """Which features to compute.

    Attributes:
        backbone: Key, or a glob that fits one backbone.
        layer: Name or index of the layer; None for the backbone's last one.
        weights: ``none``, a published name or a path; None for the published weights.
        pooling: Of a spatial map, None for the whole tensor.
        image_size: Side of the square input in pixels; None for the backbone's own.
        resize: How an image becomes a square; see ``automl_tl.data.decode``.
        split: Only what the data itself puts there; None for all images.
        device: ``auto`` or one of the backend's devices.
    """

    backbone: str
    layer: str | None = None
    weights: str | None = None
    pooling: Literal["avg", "max"] | None = None
    image_size: int | None = None
    resize: Resize = "squash"
    split: Split | None = None
    device: str = "auto"


def write_features(
    data: str | Path,
    output: str | Path,
    settings: FeatureSettings,
    stage: Stage = silent,
    store: Store | None = None,
) -> dict[str, Any]:
    """Compute a layer's output for all sound images of a data set and write it to a file.

    Images are decoded once and kept in the cache, and so is the output of every layer past which
    one tensor flows: what a study or an earlier call computed is not computed again.

    The file holds ``features`` float32 ``(N, ...)`` in the framework's own layout, ``labels`` int64
    ``(N,)``, ``classes`` and ``paths`` (names below the data set's root) as fixed-width text, and
    ``layer``, ``backbone`` and ``image_size``; ``numpy.load(..., allow_pickle=False)`` opens it. It
    is written aside and renamed.

    Args:
        data: Whatever ``search`` takes as data.
        output: The file; its name ends in ``.npz``.
        settings: Which features.
        stage: Told how far it is.
        store: Cache; the user's by default.

    Returns:
        JSON-ready: ``path``, ``bytes``, ``data``, ``images``, ``shape`` (of one image),
        ``backbone``, ``layer``, ``layer_index``, ``pooling``, ``image_size``, ``classes``,
        ``broken`` (``name`` and ``reason`` of images left out), ``notes`` and ``seconds``.

    Raises:
        UsageError: When a setting or the file's name is wrong.
        DataError: When the data cannot be used.
        WeightsError: When there are no weights.
    """
    started = time.monotonic()
    path = _check_output(Path(output).expanduser())
    store = store or Store()
    backbone = one_backbone(settings.backbone)
    size = settings.image_size or backbone.input_size
    check_size(backbone, size)
    index = open_data(str(data), store.root, get_plugins().datasets, stage)
    wanted = _choose(index, settings.split)
    with BackendHost(backbone.backend, settings.device) as host:
        weights = weights_file(backbone, settings.weights, stage=stage)
        network = network_spec(backbone, weights, size, 0, store)
        info = describe(network, host, store)
        layer = layer_index(info, settings.layer, backbone.key)
        prepared = pixels.prepare(index, [size], settings.resize, store, stage)
        rows = _sound(index, wanted, prepared)

        def need_pixels(path: Path, step: Step) -> None:
            if not store.touch(path):
                pixels.prepare(index, [size], settings.resize, store, step)

        steps = _Steps(stage, store)
        run = _Run(host, network, info, store, prepared, need_pixels, steps)
        with run.output(rows, layer, settings.pooling, path) as features:
            shape = features.shape[1:]
            _write(
                path,
                features=features,
                labels=np.array([index.items[row].label for row in rows], np.int64),
                classes=np.array(index.classes),
                paths=np.array([index.items[row].name for row in rows]),
                layer=np.array(info.layers[layer].name),
                backbone=np.array(backbone.key),
                image_size=np.array(size),
            )
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "data": index.source,
        "images": len(rows),
        "shape": list(shape),
        "backbone": backbone.key,
        "layer": info.layers[layer].name,
        "layer_index": layer,
        "pooling": settings.pooling,
        "image_size": size,
        "classes": list(index.classes),
        "broken": [
            {"name": index.items[row].name, "reason": prepared.broken[row]}
            for row in wanted
            if row in prepared.broken
        ],
        "notes": list(index.notes),
        "seconds": time.monotonic() - started,
    }


class _Steps:
    """Hands a backend's progress on, while what is read stays in use."""

    def __init__(self, stage: Stage, store: Store) -> None:
        self._stage = stage
        self._store = store

    def need(self, source: Source) -> None:
        """Nothing is promised here."""

    def epoch(self, report: EpochReport) -> None:
        """Nothing is trained here."""

    def step(self, what: str, done: int, total: int) -> None:
        self._store.hold()
        self._stage("computing features", done, total)


class _Run:
    """A network over the pixels of a data set."""

    def __init__(
        self,
        host: BackendHost,
        network: NetworkSpec,
        info: NetworkInfo,
        store: Store,
        prepared: pixels.Pixels,
        need_pixels: NeedPixels,
        steps: _Steps,
    ) -> None:
        self._host = host
        self._network = network
        self._info = info
        self._steps = steps
        ((size, path),) = prepared.paths.items()
        identity = pixels.identity(pixels.key(prepared.dataset_hash, size, prepared.resize))
        seen = input_id(identity, network.backbone)
        self._activations = Activations(store, host, network, info, path, seen, need_pixels)

    @contextmanager
    def output(
        self,
        rows: NDArray[np.int64],
        layer: int,
        pooling: Literal["avg", "max"] | None,
        path: Path,
    ) -> Iterator[NDArray[np.float32]]:
        """Give a layer's output, memory-mapped, from the cache where that can hold it."""
        tap = Tap(layer + 1, pooling)
        last = tap.cut == len(self._info.layers)
        if any(cut.index == tap.cut for cut in self._info.cuts) and (last or pooling is None):
            source = self._activations.source(rows, tap)
            try:
                self._activations.ensure(source, self._steps, Reuse())
            except CacheError:
                pass  # too large to keep; below it is computed for this call alone
            else:
                yield np.load(source.path, mmap_mode="r")
                return
        features = path.with_name(f".{uuid.uuid4().hex}.npy")
        try:
            source = self._activations.below(rows, tap, self._steps)
            name = self._info.layers[layer].name
            out = features.absolute()
            self._host.extract(self._network, source, name, pooling, out, self._steps)
            yield np.load(features, mmap_mode="r")
        finally:
            features.unlink(missing_ok=True)


def _check_output(path: Path) -> Path:
    if path.suffix.lower() != SUFFIX:
        raise UsageError(
            f"-o {path}: expected a name that ends in {SUFFIX}, the one format of features; "
            f"write {path.with_suffix(SUFFIX)} and convert that."
        )
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: expected an existing folder, but there is no {path.parent}.")
    if path.is_dir():
        raise UsageError(f"-o {path}: expected a file to write, but this is a folder.")
    return path


def _choose(index: DataIndex, split: Split | None) -> list[int]:
    """Return the rows of a split, as the data itself has it."""
    items = enumerate(index.items)
    rows = [row for row, item in items if split is None or item.split == split]
    if not rows:
        given = sorted({item.split for item in index.items if item.split})
        raise DataError(
            f"Expected images for the split {split!r} in {index.source}, but "
            f"{'it has only ' + ', '.join(given) if given else 'it is not split'}; leave out "
            "--split to use all images."
        )
    return rows


def _sound(index: DataIndex, wanted: list[int], prepared: pixels.Pixels) -> NDArray[np.int64]:
    rows = [row for row in wanted if row not in prepared.broken]
    if not rows:
        raise DataError(
            f"None of the {len(wanted)} files in {index.source} is a usable image "
            f"({prepared.broken[wanted[0]]}); `automl-tl data check` lists them."
        )
    return np.array(rows, np.int64)


def _write(path: Path, **arrays: Any) -> None:
    """Replace a file in one step; a memory-mapped array is never held as a whole."""
    try:
        with written_aside(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UsageError(f"-o {path}: it cannot be written ({error.strerror or error}).") from None
