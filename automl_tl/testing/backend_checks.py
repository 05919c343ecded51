"""Checks of a backend, on the smallest of its backbones."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.augment import draw
from automl_tl.errors import AutoMLError, PluginError, TrialError
from automl_tl.plugins import get_plugins
from automl_tl.testing.arrays import difference, read
from automl_tl.testing.export_checks import check_all_formats
from automl_tl.testing.findings import Finding, reason, some
from automl_tl.testing.views import augmented
from automl_tl.types import Source, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.specs import Backbone
    from automl_tl.testing.bench import Bench

SAME = 1e-4
"""Of the largest value."""
HALF = 4e-3
"""float16 rounds at 4.9e-4 of a value; what a network makes of it may be more."""


def smallest_backbone(backend: str) -> Backbone:
    """Return the backbone of a backend with the fewest multiply-adds and parameters, as known.

    Raises:
        PluginError: When nobody provides one.
    """
    own = [one for one in get_plugins().backbones.values() if one.backend == backend]
    if not own:
        raise PluginError(f"no backbone of the backend {backend} is installed to check it with")
    return min(own, key=lambda one: (one.input_size**2 * one.parameters, one.key))


def check_formats(bench: Bench) -> Iterator[Finding]:
    """The backend's description names its formats, their suffixes and installed packages."""
    spec = get_plugins().backend(bench.host.name)
    wrong = [f"{f}: {s!r}" for f, s in spec.formats.items() if not s.startswith(".")]
    received = some(wrong or [f"{f}: {s}" for f, s in spec.formats.items()], 8)
    right = "onnx" in spec.formats and not wrong
    expected = "formats with suffixes such as .onnx, ONNX among them"
    yield on_backend(bench, "formats", expected, received, right)
    missing = [package for package in spec.packages if not _installed(package)]
    received = f"{some(missing)} not installed" if missing else some(spec.packages)
    yield on_backend(bench, "formats", "packages that are installed", received, not missing)


def check_devices(bench: Bench) -> Iterator[Finding]:
    """The backend has a CPU, and refuses a device that is not there."""
    devices = bench.host.devices()
    yield on_backend(
        bench, "devices", "cpu as the last of the devices", some(devices), devices[-1:] == ["cpu"]
    )
    chosen = bench.host.configure("cpu", 1)
    yield on_backend(bench, "devices", "cpu when cpu is chosen", chosen, chosen == "cpu")
    expected = "a UsageError for the device nowhere:7"
    try:
        received = bench.host.configure("nowhere:7", 1)
    except AutoMLError as error:
        yield on_backend(bench, "devices", expected, reason(error), True)
    else:
        yield on_backend(bench, "devices", expected, received, False)
    bench.host.configure("cpu", 1)


def check_views(bench: Bench) -> Iterator[Finding]:
    """Views augment the images as ``automl_tl.augment`` says, keyed by their place in the rows."""
    rows = np.arange(len(bench.labels))[::-1]
    view = View(1.0, seed=2, index=3)
    source = replace(bench.pixels(rows), view=view)
    found = read(bench.run(source, bench.end, "avg"))
    drawn = augmented(bench.images[rows], draw(view, len(rows)))
    path = bench.folder / "augmented.npy"
    np.save(path, drawn.round().astype(np.uint8))
    expected = read(bench.run(Source(path, 0), bench.end, "avg"))
    plain = bench.array(bench.end, "avg")[rows]
    # A network with random weights hardly tells images apart: what counts is what the view does.
    done = float(np.abs(expected - plain).max())
    off = float(np.abs(found - expected).max()) / done if done else float("inf")
    yield on_backend(
        bench,
        "views",
        "the features of the images that the formulas give",
        f"features that are off by {off:.2g} of what the view changes",
        off <= 0.1,
    )


def check_half_precision(bench: Bench) -> Iterator[Finding]:
    """Arrays in float16 are written and read."""
    whole = bench.array(bench.end, "avg")
    stored = (
        bench.run(bench.pixels(), bench.middle, dtype="float16") if bench.middle else bench.pixels()
    )
    off = difference(read(bench.run(stored, bench.end, "avg", dtype="float16")), whole)
    yield on_backend(
        bench,
        "half precision",
        "nearly the same features by way of float16 arrays",
        f"values that differ by {off:.2g} of the largest",
        off <= HALF,
    )


def check_calibration(bench: Bench) -> Iterator[Finding]:
    """A temperature divides the logits."""
    trained = bench.frozen
    model = bench.host.load(trained.path)
    before = model.logits(bench.images)
    model.calibrate(2.5)
    off = difference(model.logits(bench.images) * np.float32(2.5), before)
    yield on_backend(
        bench,
        "calibration",
        "logits divided by the temperature",
        f"values that differ by {off:.2g} of the largest",
        off <= SAME,
    )


def check_refusals(bench: Bench) -> Iterator[Finding]:
    """What cannot be done is refused with an error of automl-tl, in a sentence."""
    path = bench.folder / "no-model.safetensors"
    path.write_bytes(b"this is no model")
    smaller = replace(bench.spec, image_size=max(1, bench.backbone.min_size - 1))
    backend = bench.host.name
    calls: dict[str, Callable[[], object]] = {
        "an unknown backbone": lambda: bench.host.describe(
            replace(bench.spec, backbone=f"{backend}/no such backbone")
        ),
        "a file that is no model": lambda: bench.host.load(path),
        "weights that are not there": lambda: bench.host.describe(
            replace(bench.spec, weights=bench.folder / "nothing", weights_id="nothing")
        ),
    }
    if smaller.image_size < bench.backbone.min_size:
        calls["images that are too small"] = lambda: bench.host.describe(smaller)
    for what, call in calls.items():
        expected, received, right = f"{what} to be refused", "no error at all", False
        try:
            call()
        except AutoMLError as error:
            right = not isinstance(error, TrialError)
            received = reason(error)
        yield on_backend(bench, "refusals", expected, received, right)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def on_backend(bench: Bench, check: str, expected: str, received: str, passed: bool) -> Finding:
    """Return a finding of the backend, whichever network it was found with."""
    return Finding(f"backend {bench.host.name}", check, expected, received, passed)


BACKEND_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_formats,
    check_devices,
    check_views,
    check_half_precision,
    check_calibration,
    check_refusals,
    check_all_formats,
)
