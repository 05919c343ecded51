"""Stored outputs of the frozen part of a network: computed once, shared by all trials."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import augment
from automl_tl.planner import Tap
from automl_tl.speeds import power_of_two
from automl_tl.training.scale import feature_scale
from automl_tl.types import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.protocols import Backend, Progress
    from automl_tl.types import EpochReport, NetworkInfo, NetworkSpec, View

    Step = Callable[[str, int, int], None]
    NeedPixels = Callable[[Path, Step], object]

KIND = "activations"
_TRIED = 16
_LARGEST_HALF = 65504.0
_HALF_ERROR = 1e-3


@dataclass(slots=True)
class Reuse:
    """What a trial computed of frozen layers, and what it found computed.

    Attributes:
        passes: Arrays computed: cut, pooling, view, images, multiply-adds, seconds.
        hits: Arrays found computed.
        images: Images read from arrays in all epochs, without the frozen layers running again.
        seconds: What computing those had taken, epoch for epoch.
        slowest: Most seconds an image that any of the arrays took.
        new: Arrays computed whose first epoch is still to come.
    """

    passes: list[dict[str, Any]] = field(default_factory=list)
    hits: int = 0
    images: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    new: set[Path] = field(default_factory=set)

    def facts(self) -> dict[str, Any]:
        """Return what is recorded of it, JSON-ready."""
        return {
            "passes": self.passes,
            "hits": self.hits,
            "images": self.images,
            "seconds": self.seconds,
            "slowest": self.slowest,
        }


@dataclass(frozen=True, slots=True)
class _Promise:
    key: dict[str, Any]
    rows: NDArray[np.int64]
    tap: Tap
    view: View | None


class Activations:
    """The stored activations of one network on one data set.

    Args:
        store: Where they lie.
        backend: Computes what is missing.
        network: The network.
        info: Its layers and cuts.
        pixels: The pixel array at the network's image size.
        input_id: Identity of what the network sees of it: the pixels and their preprocessing.
        need_pixels: Makes sure that the pixel array is there; told how to say how far that is.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        network: NetworkSpec,
        info: NetworkInfo,
        pixels: Path,
        input_id: str,
        need_pixels: NeedPixels,
    ) -> None:
        self._store = store
        self._backend = backend
        self._network = network
        self._info = info
        self._pixels = pixels
        self._input_id = input_id
        self._need_pixels = need_pixels
        self._promises: dict[Path, _Promise] = {}
        self._ready: dict[Path, float] = {}

    def source(self, rows: NDArray[np.int64], tap: Tap, view: View | None = None) -> Source:
        """Promise the values at a tap for some images; nothing is computed yet.

        Args:
            rows: Indices into the pixel array.
            tap: Where. Cut 0 is the pixels themselves.
            view: Augmentation of the pixels.
        """
        if tap.cut == 0:
            return Source(self._pixels, 0, None, rows, view)
        key = self._key(rows, tap, view)
        path = self._store.place(KIND, key) / "data.npy"
        self._promises[path] = _Promise(key, rows, tap, view)
        return Source(path, tap.cut, tap.pooling)

    def ensure(self, source: Source, progress: Progress, reuse: Reuse) -> None:
        """Keep a promise: compute the array unless it is stored, from the deepest stored cut below.

        Args:
            source: Promised by ``source``, or pixels, which are decoded anew when they have gone.
            progress: Of the trial that needs it.
            reuse: Of that trial.

        Raises:
            CacheError: When there is no room for it.
            StopTraining: What ``progress`` raised; nothing is left behind.
        """
        promise = self._promises.get(source.path)
        if promise is None:
            self._need_pixels(source.path, progress.step)
            return
        shape = self._shape(promise)
        if source.path in self._ready and self._store.touch(source.path):
            return
        started = time.monotonic()
        flops = {cut.index: cut.flops for cut in self._info.cuts}
        tap, spent = promise.tap, 0

        def fill(path: Path) -> dict[str, float]:
            nonlocal spent
            below = self.below(promise.rows, tap, progress, promise.view)
            spent = (flops[tap.cut] - flops[below.cut]) * shape[0]
            watch = _Watch(progress)
            self._backend.run(self._network, below, tap.cut, tap.pooling, path, watch)
            seconds = shape[0] / watch.images_a_second(shape[0])
            return {"flops_a_second": spent / seconds, "seconds": seconds}

        def waiting() -> None:
            progress.step("waiting for another process", 0, 1)

        entry, computed = self._store.get(KIND, promise.key, shape, tap.dtype, fill, waiting)
        seconds = self._ready[source.path] = float(entry.meta["seconds"])
        reuse.slowest = max(reuse.slowest, seconds / shape[0])
        if not computed:
            reuse.hits += 1
            return
        reuse.new.add(source.path)
        reuse.passes.append(
            {
                "cut": tap.cut,
                "pooling": tap.pooling,
                "view": promise.view.index if promise.view else None,
                "images": shape[0],
                "flops": spent,
                "seconds": round(time.monotonic() - started, 3),
            }
        )

    def share(self, rows: NDArray[np.int64], tap: Tap, views: Sequence[View | None]) -> float:
        """Return the share of the views of some images whose values at a tap are stored."""
        there = sum(self._store.has(KIND, self._key(rows, tap, view)) for view in views)
        return there / len(views)

    def forward_speed(self, source: Source) -> float | None:
        """Return the multiply-adds a second at which a kept promise was computed, if it is known.

        It was measured once and is kept with the array.
        """
        entry = self._store.find(KIND, self._promises[source.path].key)
        speed = entry.meta.get("flops_a_second") if entry else None
        return power_of_two(speed) if speed else None

    def halves(self, rows: NDArray[np.int64], cut: int, progress: Progress) -> bool:
        """Say whether float16 is exact enough at a cut: in range, and off by less than 1e-3.

        Tried on the first images, once; the error is that of the whole in the Euclidean norm.
        """
        tap = Tap(cut)
        key = self._key(rows[:_TRIED], tap, None)

        def measure() -> dict[str, float]:
            few = rows[:_TRIED]
            shape = next(c.shape for c in self._info.cuts if c.index == cut)
            with self._store.scratch("halves", key) as folder:
                path = folder / "data.npy"
                np.save(path, np.zeros((len(few), *shape), np.float32))
                below = self.below(few, tap, progress)
                self._backend.run(self._network, below, cut, None, path, progress)
                values = np.load(path)
            with np.errstate(over="ignore"):
                off = np.linalg.norm((values - values.astype(np.float16)).ravel())
            size = np.linalg.norm(values.ravel())
            largest = float(np.abs(values).max())
            return {"largest": largest, "error": float(off / size) if size else 0.0}

        found = self._store.remember("halves", key, measure)
        return bool(found["largest"] < _LARGEST_HALF / 2 and found["error"] < _HALF_ERROR)

    def scale(self, source: Source) -> float:
        """Return the ``feature_scale`` of a promise at the last cut that was kept."""
        key = self._promises[source.path].key
        return float(self._store.remember("scales", key, lambda: feature_scale(source)))

    def below(
        self, rows: NDArray[np.int64], tap: Tap, progress: Progress, view: View | None = None
    ) -> Source:
        """Return the deepest stored array that the values at a tap can be computed from."""
        for cut in reversed(self._info.cuts):
            deeper = cut.index >= tap.cut and not tap.pooling
            if cut.index == 0 or deeper or cut.index > tap.cut:
                continue
            if entry := self._store.find(KIND, self._key(rows, Tap(cut.index), view)):
                return Source(entry.path, cut.index)
        self._need_pixels(self._pixels, progress.step)
        return Source(self._pixels, 0, None, rows, view)

    def read(self, source: Source, reuse: Reuse) -> None:
        """Count an epoch over a source: it saved a pass, unless the array was made for it."""
        promise = self._promises.get(source.path)
        if promise is None:
            return
        if source.path in reuse.new:
            reuse.new.discard(source.path)
            return
        reuse.images += len(promise.rows)
        reuse.seconds += self._ready.get(source.path, 0.0)

    def _shape(self, promise: _Promise) -> tuple[int, ...]:
        images = len(promise.rows)
        if promise.tap.pooling:
            return (images, self._info.features)
        shape = next(cut.shape for cut in self._info.cuts if cut.index == promise.tap.cut)
        return (images, *shape)

    def _key(self, rows: NDArray[np.int64], tap: Tap, view: View | None) -> dict[str, Any]:
        return {
            "input": self._input_id,
            "rows": hashlib.sha256(rows.tobytes()).hexdigest()[:32],
            "backbone": self._network.backbone,
            "weights": self._network.weights_id,
            "size": self._network.image_size,
            "augment": augment.VERSION if view else None,
            "version": self._info.version,
            "cut": tap.cut,
            "pooling": tap.pooling,
            "view": asdict(view) if view else None,
            **({"dtype": tap.dtype} if tap.dtype != "float32" else {}),
        }


class _Watch:
    """Progress of a backend's pass, timed from its first batch on: starting is no speed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = time.monotonic()
        self._marks: list[tuple[float, int]] = []

    def need(self, source: Source) -> None:
        self._progress.need(source)

    def epoch(self, report: EpochReport) -> None:
        self._progress.epoch(report)

    def step(self, what: str, done: int, total: int) -> None:
        self._marks.append((time.monotonic(), done))
        self._progress.step(what, done, total)

    def images_a_second(self, images: int) -> float:
        """Return the speed after the first batch, or with it when it is most of the images."""
        starts = [(self._begun, 0), *self._marks[:2]]
        begun, first = [mark for mark in starts if 2 * mark[1] <= images][-1]
        ended = self._marks[-1][0] if self._marks else time.monotonic()
        return (images - first) / max(1e-6, ended - begun)
