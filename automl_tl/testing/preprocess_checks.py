"""The check that pixels are prepared as a backbone says, by its network under another rule."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.host import BackendHost
from automl_tl.plugin_files import VARIABLE
from automl_tl.plugins import get_plugins, use_files
from automl_tl.specs import Preprocess
from automl_tl.testing.arrays import difference, read
from automl_tl.testing.backend_checks import SAME, on_backend
from automl_tl.testing.bench import Bench
from automl_tl.types import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from automl_tl.specs import Backbone
    from automl_tl.testing.findings import Finding

_FACTORS = 0.5, 0.25, 0.5
"""Of the channels, in either order; a network that normalises cannot undo what differs."""
_OFFSET = 60

_PLUGIN = """
from automl_tl.hookspecs import hookimpl
from automl_tl.plugins import get_plugins
from automl_tl.specs import Backbone, Preprocess


def load(weights):
    return get_plugins().backbone({key!r}).load(weights)


@hookimpl
def automl_tl_backbones():
    return [
        Backbone(
            {twin.name!r},
            {twin.backend!r},
            load,
            input_size={twin.input_size!r},
            parameters={twin.parameters!r},
            min_size={twin.min_size!r},
            fixed_size={twin.fixed_size!r},
            preprocess={twin.preprocess!r},
            packages={twin.packages!r},
        )
    ]
"""


def check_preprocessing(bench: Bench) -> Iterator[Finding]:
    """Pixels are normalised, and their channels ordered, as ``Backbone.preprocess`` says."""
    cut = bench.cuts[0]
    images = bench.images // 4 * 4
    changed = (images * _FACTORS + _OFFSET)[..., ::-1].astype(np.uint8)
    with _twin(bench) as other:
        paths = [one.folder / "to-prepare.npy" for one in (bench, other)]
        for path, pixels in zip(paths, (images, changed), strict=True):
            np.save(path, pixels)
        expected = read(bench.run(Source(paths[0], 0), cut))
        off = difference(read(other.run(Source(paths[1], 0), cut)), expected)
    yield on_backend(
        bench,
        "preprocessing",
        f"the same tensors at cut {cut} where other pixels are prepared to the same input",
        f"values that differ by {off:.2g} of the largest",
        off <= SAME,
    )


@contextmanager
def _twin(bench: Bench) -> Iterator[Bench]:
    """Put the same network under the other rule on a bench, in a process of its own."""
    backbone = bench.backbone
    twin = replace(
        backbone,
        name=f"{backbone.name}-prepared-otherwise",
        preprocess=_other(backbone.preprocess),
    )
    folder = bench.folder / "prepared-otherwise"
    folder.mkdir(exist_ok=True)
    with (
        _announced(twin, backbone.key, folder / "automl_tl_prepared_otherwise.py"),
        BackendHost(bench.host.name, "cpu", 1, bench.host.log) as host,
    ):
        yield Bench(twin, host, folder)


@contextmanager
def _announced(twin: Backbone, key: str, path: Path) -> Iterator[None]:
    """Announce a backbone in a plugin's file, to this process and to those that it starts."""
    path.write_text(_PLUGIN.format(twin=twin, key=key), encoding="utf-8")
    before = os.environ.get(VARIABLE, "")
    use_files([path])
    try:
        yield
    finally:
        os.environ[VARIABLE] = before
        get_plugins.cache_clear()


def _other(rule: Preprocess) -> Preprocess:
    """Return the rule that makes the same of the changed pixels."""
    means = (m * f + _OFFSET / 255 for m, f in zip(rule.mean, _FACTORS, strict=True))
    stds = (s * f for s, f in zip(rule.std, _FACTORS, strict=True))
    return Preprocess(_three(means), _three(stds), "rgb" if rule.channels == "bgr" else "bgr")


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
