"""Checks of fine-tuning from a head that is given, on the smallest backbone of a backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.testing.arrays import difference
from automl_tl.testing.backend_checks import SAME, on_backend
from automl_tl.testing.bench import CLASSES, TRAIN
from automl_tl.testing.findings import some
from automl_tl.types import Head, PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.bench import Bench, Trained
    from automl_tl.testing.findings import Finding


def check_warm_heads(bench: Bench) -> Iterator[Finding]:
    """A job with ``head_weights`` begins with the second phase, from that head."""
    trained = _tuned(bench, fine_tuning=PhaseSpec(1, 0.0))
    phases = [report.phase for report in trained.reports]
    right = phases == ["fine-tuning"]
    yield on_backend(bench, "warm heads", "one epoch of fine-tuning", some(phases), right)
    assert trained.job.head_weights is not None
    kernel, bias = trained.job.head_weights
    features = bench.array(bench.end, "avg")[TRAIN:] * np.float32(trained.job.head.scale)
    off = difference(trained.logits[-1], np.asarray(features @ kernel + bias, np.float32))
    yield on_backend(
        bench,
        "warm heads",
        "the logits of the given head, at a rate of 0",
        f"logits that differ by {off:.2g} of the largest",
        off <= 1e-3,
    )


def check_fine_tune_optimizer(bench: Bench) -> Iterator[Finding]:
    """Fine-tuning takes its steps with ``fine_tune_optimizer`` where a job has one."""
    own = _tuned(bench, optimizer="sgd", fine_tune_optimizer="adam")
    off = difference(own.logits, _tuned(bench, optimizer="adam").logits)
    yield on_backend(
        bench,
        "fine tune optimizer",
        "the logits of adam where it is the optimizer of fine-tuning alone",
        f"logits that differ by {off:.2g} of the largest",
        off <= SAME,
    )


def check_fine_tune_settings(bench: Bench) -> Iterator[Finding]:
    """Weight decay, class weights and label smoothing count while fine-tuning, too."""
    plain = _tuned(bench)
    settings = {
        "weight_decay": 0.5,
        "class_weights": np.array([0.5, 1.0, 1.5], np.float32),
        "label_smoothing": 0.1,
    }
    for name, value in settings.items():
        off = difference(_tuned(bench, **{name: value}).logits, plain.logits)
        yield on_backend(
            bench,
            "fine tune settings",
            f"other logits with {name}",
            f"logits that differ by {off:.2g} of the largest",
            off > 0,
        )


def check_epoch_sources(bench: Bench) -> Iterator[Finding]:
    """Epoch ``e`` of fine-tuning reads ``tune_train[e % len(tune_train)]``."""
    (first,) = bench.job(bench.middle).tune_train
    second = replace(first, path=bench.folder / "mirrored.npy")
    np.save(second.path, bench.images[:, :, ::-1])
    three = PhaseSpec(3, 1e-3)
    found = _tuned(bench, tune_train=(first, second), fine_tuning=three).logits
    named = _tuned(bench, tune_train=(first, second, first), fine_tuning=three).logits
    alone = _tuned(bench, tune_train=(first,), fine_tuning=three).logits
    off = difference(found, named)
    yield on_backend(
        bench,
        "epoch sources",
        "the same logits from two sources in turn as from three, the third the first again",
        f"logits that differ by {off:.2g} of the largest",
        off <= SAME,
    )
    before, after = difference(found[:1], alone[:1]), difference(found[1:], alone[1:])
    yield on_backend(
        bench,
        "epoch sources",
        "other logits than from the first source alone, from the second epoch on",
        f"logits that differ by {before:.2g} in the first epoch, then by {after:.2g}",
        before <= SAME and after > 0,
    )


def _tuned(bench: Bench, **changes: object) -> Trained:
    """Fine-tune the upper half from a drawn head, without dropout, for one epoch at 1e-3."""
    job = bench.job(bench.middle)
    kernel = np.random.default_rng(3).normal(0, 0.1, (bench.info.features, CLASSES))
    fixed = {
        "head": Head(CLASSES, scale=job.head.scale),
        "head_weights": (kernel.astype(np.float32), np.arange(CLASSES, dtype=np.float32)),
        "fine_tuning": PhaseSpec(1, 1e-3),
    }
    return bench.train(replace(job, **(fixed | changes)))  # type: ignore[arg-type]


FINE_TUNE_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_warm_heads,
    check_fine_tune_optimizer,
    check_fine_tune_settings,
    check_epoch_sources,
)
