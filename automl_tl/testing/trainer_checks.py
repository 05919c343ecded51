"""Checks of a backend's trainer, on the smallest of its backbones."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.errors import AutoMLError, FinishTraining, PruneTraining
from automl_tl.parameters import PARAMETERS
from automl_tl.parity import TOLERANCE
from automl_tl.testing.arrays import difference
from automl_tl.testing.backend_checks import SAME, on_backend
from automl_tl.testing.bench import CLASSES, TRAIN, Recorder
from automl_tl.testing.findings import some
from automl_tl.training.split import SplitTrainer
from automl_tl.types import PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.protocols import Trainer
    from automl_tl.testing.bench import Bench
    from automl_tl.testing.findings import Finding
    from automl_tl.types import EpochReport, Pooling, Source, TrainJob


def check_reports(bench: Bench) -> Iterator[Finding]:
    """Every epoch is reported, counted through both phases, with logits of all images."""
    spec = PhaseSpec(2, 1e-4)
    trained = bench.once(bench.middle, fine_tuning=spec, schedule="cosine")
    seen = [(r.phase, r.epoch, r.epochs) for r in trained.reports]
    expected = [("warm-up", 0, 3), ("fine-tuning", 1, 3), ("fine-tuning", 2, 3)]
    yield on_backend(bench, "reports", f"reports {expected}", f"{seen}", seen == expected)
    shape = (len(bench.labels) - TRAIN, CLASSES)
    shapes = {report.validation_logits.shape for report in trained.reports}
    yield on_backend(
        bench,
        "reports",
        f"validation logits of shape {shape}",
        some(map(str, sorted(shapes))),
        shapes == {shape},
    )
    losses = [report.train_loss for report in trained.reports]
    received = ", ".join(f"{loss:.3g}" for loss in losses)
    right = bool(np.isfinite(losses).all()) and min(losses) > 0
    yield on_backend(bench, "reports", "finite losses above 0", received, right)


def check_heads(bench: Bench) -> Iterator[Finding]:
    """A head trains to the numbers that the core reaches in NumPy, with every optimizer."""
    for optimizer in PARAMETERS["optimizer"].options:
        head = replace(bench.job(bench.end).head, units=(5,), dropout=0.0)
        job = bench.job(
            bench.end,
            pooled=True,
            head=head,
            optimizer=optimizer,
            schedule="cosine",
            warmup=PhaseSpec(3, 3e-3),
            weight_decay=0.5,
            label_smoothing=0.1,
            class_weights=np.array([0.5, 1.0, 1.5], np.float32),
        )
        core = Recorder()
        SplitTrainer(job, bench.host).run(core)
        off = difference(bench.train(job).logits, core.logits)
        yield on_backend(
            bench,
            "heads",
            f"the logits of the core's own training with {optimizer}",
            f"logits that differ by {off:.2g} of the largest",
            off <= 1e-3,
        )


def check_promises(bench: Bench) -> Iterator[Finding]:
    """Training asks for a source before it reads it, and waits while it is computed."""
    job = bench.job(bench.middle, cut=bench.middle)
    promised = bench.folder / "promised.npy"
    later = {"tune_train": (replace(job.tune_train[0], path=promised),)}
    trained = bench.train(replace(job, **later), _Promises(bench))  # type: ignore[arg-type]
    off = difference(trained.logits, bench.once(bench.middle, cut=bench.middle).logits)
    yield on_backend(
        bench,
        "promises",
        "the same logits from an array that is computed when it is needed",
        f"logits that differ by {off:.2g} of the largest",
        off <= SAME,
    )


def check_stops(bench: Bench) -> Iterator[Finding]:
    """What ``progress`` raises leaves the training, whose last reported epoch can be saved."""
    for error in (PruneTraining("enough"), FinishTraining("enough")):
        job = bench.job(bench.middle, fine_tuning=PhaseSpec(3, 1e-3))
        trainer, recorder = bench.host.trainer(job), _Stopping(error)
        expected, received = f"{type(error).__name__} to pass through", "no error at all"
        try:
            trainer.run(recorder)
        except AutoMLError as raised:
            received = type(raised).__name__
        right = received == type(error).__name__
        yield on_backend(bench, "stops", expected, "that" if right else received, right)
    expected = "the last reported epoch in the model that is saved afterwards"
    yield _saved(bench, "stops", expected, job, trainer, recorder)


def check_early_stops(bench: Bench) -> Iterator[Finding]:
    """Stopped in its first epoch of fine-tuning, a trial's model is the one that was warmed up."""
    job = bench.job(bench.middle, warmup=PhaseSpec(2, 1e-3), fine_tuning=PhaseSpec(3, 1e-2))
    trainer, recorder = SplitTrainer(job, bench.host), _StoppingEarly(job.warmup.epochs)
    with suppress(FinishTraining):
        trainer.run(recorder)
    expected = "the head that was given in the model that is saved before an epoch ended"
    yield _saved(bench, "early stops", expected, job, trainer, recorder)


def check_poolings(bench: Bench) -> Iterator[Finding]:
    """A head pools as it says, from stored arrays as from the pixels."""
    base = bench.job(bench.end).head
    rows = np.arange(len(bench.labels))
    sources: dict[Pooling, Source] = {
        "max": bench.stored(bench.end, "max"),
        "flatten": bench.stored(bench.end),
    }
    for pooling, stored in sources.items():
        head = replace(base, pooling=pooling)
        train, validation = (replace(stored, rows=part) for part in (rows[:TRAIN], rows[TRAIN:]))
        job = bench.job(bench.end, head=head)
        found = bench.train(replace(job, head_train=train, head_validation=validation))
        off = difference(found.logits, bench.train(job).logits)
        yield on_backend(
            bench,
            "poolings",
            f"the logits that a head with pooling {pooling} reaches from the pixels",
            f"logits that differ by {off:.2g} of the largest",
            off <= 1e-3,
        )


def _saved(
    bench: Bench, what: str, expected: str, job: TrainJob, trainer: Trainer, recorder: Recorder
) -> Finding:
    """Hold the model that a stopped trainer saves to the last epoch that it reported."""
    trained = bench.finished(job, trainer, recorder, keep=True)
    logits = bench.host.load(trained.path).logits(bench.images[TRAIN:])
    off = difference(logits, trained.logits[-1])
    received = f"logits that differ by {off:.2g} of the largest"
    return on_backend(bench, what, expected, received, off <= TOLERANCE)


class _Promises(Recorder):
    """Computes a source when it is needed, as the core does."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def need(self, source: Source) -> None:
        """Compute a source that is not there, in a call from within the call that trains."""
        bench = self._bench
        if not source.path.exists():
            made = bench.run(bench.pixels(), source.cut) if source.cut else bench.pixels()
            np.save(source.path, np.load(made.path))


class _Stopping(Recorder):
    """Stops after the second epoch."""

    def __init__(self, error: AutoMLError) -> None:
        super().__init__()
        self._error = error

    def epoch(self, report: EpochReport) -> None:
        """Keep a report; the second one is the last."""
        super().epoch(report)
        if len(self.reports) == 2:
            raise self._error


class _StoppingEarly(Recorder):
    """Stops at the first step after so many epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def step(self, what: str, done: int, total: int) -> None:
        """Hear of a step, of which some images are behind."""
        super().step(what, done, total)
        if done and len(self.reports) == self._epochs:
            raise FinishTraining("enough")


TRAINER_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_reports,
    check_heads,
    check_promises,
    check_stops,
    check_early_stops,
    check_poolings,
)
