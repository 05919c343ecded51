"""Checks of model files: what is saved and exported computes what was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from automl_tl.errors import ExportError
from automl_tl.export import export_model
from automl_tl.parity import TOLERANCE
from automl_tl.plugins import get_plugins
from automl_tl.testing.arrays import difference
from automl_tl.testing.bench import TRAIN
from automl_tl.testing.findings import Finding, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.bench import Bench

ONNX = "onnx"


def check_saved_model(bench: Bench) -> Iterator[Finding]:
    """A saved model gives the logits that training reported last."""
    for what, trained in (("frozen", bench.frozen), ("fine-tuned", bench.tuned)):
        logits = bench.host.load(trained.path).logits(bench.images[TRAIN:])
        off = difference(logits, trained.logits[-1])
        yield Finding(
            bench.key,
            "saved model",
            f"the last validation logits from a {what} model's file",
            f"logits that differ by {off:.2g} of the largest",
            off <= TOLERANCE,
        )


def check_export(bench: Bench) -> Iterator[Finding]:
    """Logits agree before and after the export to ONNX, or to the default format."""
    formats = list(get_plugins().backend(bench.host.name).formats)
    yield from _exported(bench, ONNX if ONNX in formats else formats[0], "export")


def check_all_formats(bench: Bench) -> Iterator[Finding]:
    """Logits agree before and after the export to every format of the backend."""
    for format in get_plugins().backend(bench.host.name).formats:
        yield from _exported(bench, format, "all formats")


def _exported(bench: Bench, format: str, check: str) -> Iterator[Finding]:
    """Export as a search does, which proves the file equal or says why it is not."""
    trained = bench.tuned
    suffixes = get_plugins().backend(bench.host.name).formats
    expected = f"a file in the format {format} whose logits differ by at most {TOLERANCE:g}"
    try:
        report = export_model(
            trained.path,
            format,
            bench.folder / "exported" / f"{check}{suffixes[format]}",
            bench.host,
            suffixes,
            bench.images,
            bench.labels,
            replace(bench.facts(), head=trained.job.head),
        )
    except ExportError as error:
        yield Finding(bench.key, check, expected, reason(error), False)
        return
    off = report.difference / report.scale if report.scale else report.difference
    received = f"{off:.2g} of the largest, with {report.runtime}"
    yield Finding(bench.key, check, expected, received, True)


EXPORT_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_saved_model,
    check_export,
)
