"""A backbone on the bench: built in its backend's process, with images to run and to train on."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors.numpy import load_file

from automl_tl.errors import TrialError
from automl_tl.modelfile import ModelFacts
from automl_tl.testing.arrays import changed, count, make_images, read
from automl_tl.training.scale import feature_scale
from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.host import BackendHost
    from automl_tl.protocols import Trainer
    from automl_tl.specs import Backbone
    from automl_tl.testing.arrays import Array, Tensors
    from automl_tl.types import EpochReport, NetworkInfo, TrainFacts

CLASSES = 3
TRAIN, VALIDATION = 8, 4
BATCH = 4
SIDE = 64
MOST_CUTS = 5
"""Of a network with more cuts these many are looked at: the first, the last, some between."""


class Recorder:
    """Hears what a backend reports. See ``automl_tl.protocols.Progress``."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def need(self, source: Source) -> None:
        """Every source is there already."""

    def epoch(self, report: EpochReport) -> None:
        """Keep a report."""
        self.reports.append(report)

    def step(self, what: str, done: int, total: int) -> None:
        """Nobody waits for it."""

    @property
    def logits(self) -> Array:
        """float32 ``(epochs, n, classes)``."""
        return np.stack([report.validation_logits for report in self.reports])


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training.

    Attributes:
        job: What was trained.
        reports: Of every epoch.
        logits: Validation logits of every epoch, ``(epochs, n, classes)``.
        facts: What the trainer knows at the end.
        path: The model file, which is there only when it was to be kept.
        moved: Names of the network's tensors that are no longer the same, bit for bit.
        values: How many values these have.
    """

    job: TrainJob
    reports: tuple[EpochReport, ...]
    logits: Array
    facts: TrainFacts
    path: Path
    moved: frozenset[str]
    values: int


class Bench:
    """A backbone with random weights, images, and a host to run it.

    What was computed once is kept, so that checks can share it.

    Args:
        backbone: What to check.
        host: Of its backend.
        folder: For arrays and model files.
    """

    def __init__(self, backbone: Backbone, host: BackendHost, folder: Path) -> None:
        self.backbone = backbone
        self.key = backbone.key
        self.host = host
        self.folder = folder
        self._count = 0
        self._stored: dict[tuple[int, str | None], Source] = {}
        self._trained: dict[tuple[object, ...], Trained] = {}

    @property
    def subject(self) -> str:
        """What findings call it."""
        return self.key

    @functools.cached_property
    def size(self) -> int:
        """Side of the images: small, but not the least, where the backbone lets us choose."""
        backbone = self.backbone
        if backbone.fixed_size:
            return backbone.input_size
        return min(backbone.input_size, max(SIDE, 2 * backbone.min_size))

    @functools.cached_property
    def spec(self) -> NetworkSpec:
        """The network, with random weights."""
        return NetworkSpec(self.key, self.size, None, "random:0", seed=0)

    @functools.cached_property
    def info(self) -> NetworkInfo:
        """Layers and cuts, as the backend describes them."""
        return self.host.describe(self.spec)

    @property
    def end(self) -> int:
        """Index of the last cut."""
        return len(self.info.layers)

    @functools.cached_property
    def cuts(self) -> list[int]:
        """The cuts above the pixels that are looked at, the last among them."""
        inner = [cut.index for cut in self.info.cuts if cut.index > 0]
        if len(inner) <= MOST_CUTS:
            return inner
        return [inner[i] for i in np.linspace(0, len(inner) - 1, MOST_CUTS).round().astype(int)]

    @functools.cached_property
    def middle(self) -> int:
        """The cut with about half of the parameters' layers above it; 0 where there is none."""
        weighted = [i for i, layer in enumerate(self.info.layers) if layer.parameters]
        half = weighted[len(weighted) // 2] if weighted else 0
        return max(cut.index for cut in self.info.cuts if cut.index <= half)

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of every image."""
        return np.arange(TRAIN + VALIDATION) % CLASSES

    @functools.cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 ``(n, S, S, 3)``: noise over horizontal, vertical or no stripes."""
        return make_images(self.labels, self.size)

    def pixels(self, rows: NDArray[np.int64] | None = None) -> Source:
        """Return the source of the images."""
        path = self.folder / "pixels.npy"
        if not path.exists():
            np.save(path, self.images)
        return Source(path, 0, rows=rows)

    def run(
        self,
        source: Source,
        cut: int,
        pooling: Literal["avg", "max"] | None = None,
        spec: NetworkSpec | None = None,
        dtype: str = "float32",
    ) -> Source:
        """Compute the layers from a source to a cut; returns the source of the result."""
        info = self.info
        shapes = {one.index: one.shape for one in info.cuts}
        shape = (info.features,) if pooling else shapes[cut]
        out = self._new("run")
        count = (
            len(np.load(source.path, mmap_mode="r")) if source.rows is None else len(source.rows)
        )
        # NaN marks what the backend leaves out.
        np.save(out, np.full((count, *shape), np.nan, dtype))
        self.host.run(spec or self.spec, source, cut, pooling, out, Recorder())
        return Source(out, cut, pooling)

    def stored(self, cut: int, pooling: Literal["avg", "max"] | None = None) -> Source:
        """Return the source of all images at a cut, computed from the pixels once."""
        if cut == 0:
            return self.pixels()
        if (cut, pooling) not in self._stored:
            self._stored[cut, pooling] = self.run(self.pixels(), cut, pooling)
        return self._stored[cut, pooling]

    def array(self, cut: int, pooling: Literal["avg", "max"] | None = None) -> Array:
        """Return what ``stored`` holds."""
        return read(self.stored(cut, pooling))

    def extracted(self, layer: str, pooling: Literal["avg", "max"] | None = None) -> Array:
        """Return a layer's output for all images, in the shape that it really has."""
        out = self._new("extract")
        self.host.extract(self.spec, self.pixels(), layer, pooling, out, Recorder())
        return np.asarray(np.load(out), np.float32)

    def assembled(self, spec: NetworkSpec | None = None) -> Tensors:
        """Return all tensors of the network as it is loaded, without the head's."""
        spec, files = spec or self.spec, []
        for constant in (0.25, 0.5):
            shapes = (self.info.features, CLASSES), (CLASSES,)
            weights = [np.full(shape, constant, np.float32) for shape in shapes]
            path = self._new("assembled", ".safetensors")
            self.host.assemble(spec, Head(CLASSES), weights, path, self.facts().metadata())
            files.append(load_file(path))
            path.unlink()
        first, second = files
        # The files differ in the head's two tensors alone, whatever these are called.
        other = [k for k, v in first.items() if not np.array_equal(v, second[k], equal_nan=True)]
        if len(other) > 2:
            raise TrialError(f"the network was loaded twice with one seed, but {other} differ")
        return {name: value for name, value in first.items() if name not in other}

    @functools.cached_property
    def tensors(self) -> Tensors:
        """All tensors of the network before any training."""
        return self.assembled()

    def facts(self, fine_tune_at: int = 0) -> ModelFacts:
        """Return the metadata of a model file of this backbone."""
        names = tuple(f"class {index}" for index in range(CLASSES))
        return ModelFacts(self.key, self.size, "squash", names, Head(CLASSES), fine_tune_at)

    def job(
        self, fine_tune_at: int, cut: int = 0, pooled: bool = False, **changes: object
    ) -> TrainJob:
        """Return a job.

        Args:
            fine_tune_at: As for ``TrainJob``; ``end`` trains the head alone.
            cut: What phase 2 reads, at or below ``fine_tune_at``.
            pooled: Whether the head alone trains on pooled features, not on the pixels.
            **changes: Any other fields of the job.
        """
        tuned = fine_tune_at < self.end
        head = self.stored(self.end, "avg") if pooled or tuned else self.pixels()
        rows = np.arange(TRAIN + VALIDATION)
        parts = rows[:TRAIN], rows[TRAIN:]
        scale = feature_scale(replace(self.stored(self.end, "avg"), rows=parts[0]))
        job = TrainJob(
            network=self.spec,
            info=self.info,
            head=Head(CLASSES, dropout=0.2, scale=scale),
            fine_tune_at=fine_tune_at,
            warmup=PhaseSpec(1 if tuned else 2, 1e-3),
            fine_tuning=PhaseSpec(1 if tuned else 0, 1e-4),
            # Its steps stay small where the gradients of random weights explode.
            optimizer="adam",
            schedule="constant",
            weight_decay=0.0,
            batch_size=BATCH,
            label_smoothing=0.0,
            class_weights=None,
            seed=7,
            train_labels=self.labels[:TRAIN],
            head_train=replace(head, rows=parts[0]),
            head_validation=replace(head, rows=parts[1]),
            tune_train=(replace(self.stored(cut), rows=parts[0]),) if tuned else (),
            tune_validation=replace(self.stored(cut), rows=parts[1]) if tuned else None,
        )
        return replace(job, **changes)  # type: ignore[arg-type]

    def train(self, job: TrainJob, recorder: Recorder | None = None, keep: bool = False) -> Trained:
        """Train a job.

        Args:
            job: What to train.
            recorder: Told of every epoch.
            keep: Whether its model file stays, which may be large.
        """
        recorder = recorder or Recorder()
        trainer = self.host.trainer(job)
        trainer.run(recorder)
        return self.finished(job, trainer, recorder, keep)

    def finished(
        self, job: TrainJob, trainer: Trainer, recorder: Recorder, keep: bool = False
    ) -> Trained:
        """Return what a trainer has trained so far."""
        path = self._new("trained", ".safetensors")
        trainer.save(path, replace(self.facts(job.fine_tune_at), head=job.head).metadata())
        tensors = load_file(path)
        moved = changed(self.tensors, tensors)
        values = count(moved, self.tensors, tensors)
        if not keep:
            path.unlink()
        reports = tuple(recorder.reports)
        return Trained(job, reports, recorder.logits, trainer.facts(), path, moved, values)

    def once(
        self,
        fine_tune_at: int,
        cut: int = 0,
        pooled: bool = False,
        keep: bool = False,
        **changes: object,
    ) -> Trained:
        """Return what comes of ``job`` with these arguments, trained only once."""
        key = (fine_tune_at, cut, pooled, keep, *sorted(changes.items()))
        if key not in self._trained:
            job = self.job(fine_tune_at, cut, pooled, **changes)
            self._trained[key] = self.train(job, keep=keep)
        return self._trained[key]

    @property
    def frozen(self) -> Trained:
        """What comes of training the head alone, on pixels."""
        return self.once(self.end, keep=True)

    @property
    def tuned(self) -> Trained:
        """What comes of fine-tuning everything, with steps that no tiny gradient makes tiny."""
        return self.once(0, keep=True, optimizer="adam", fine_tuning=PhaseSpec(3, 1e-3))

    def _new(self, name: str, suffix: str = ".npy") -> Path:
        self._count += 1
        return self.folder / f"{name}-{self._count}{suffix}"
