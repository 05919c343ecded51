"""The whole kit, on everything that one plugin provides."""

from __future__ import annotations

import fnmatch
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.errors import PluginError, UsageError
from automl_tl.host import BackendHost
from automl_tl.plugins import get_plugins
from automl_tl.stages import silent
from automl_tl.testing import dataset_checks, engine_checks
from automl_tl.testing.backend_checks import BACKEND_CHECKS, smallest_backbone
from automl_tl.testing.bench import Bench
from automl_tl.testing.examination import SECONDS, examine
from automl_tl.testing.export_checks import EXPORT_CHECKS
from automl_tl.testing.facts_checks import FACTS_CHECKS
from automl_tl.testing.findings import Finding, S, find, name_of, reason, some
from automl_tl.testing.fine_tune_checks import FINE_TUNE_CHECKS
from automl_tl.testing.network_checks import NETWORK_CHECKS, check_layers, check_output
from automl_tl.testing.plugin_checks import PLUGIN_CHECKS
from automl_tl.testing.preprocess_checks import check_preprocessing
from automl_tl.testing.trainer_checks import TRAINER_CHECKS
from automl_tl.testing.training_checks import TRAINING_CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from automl_tl.specs import Backbone
    from automl_tl.stages import Stage

BENCH_CHECKS = (*NETWORK_CHECKS, *TRAINING_CHECKS, *EXPORT_CHECKS)
"""What is checked of every backbone that is built."""
THREADS = 1
"""On small images, threads only wait for one another."""
LIMIT = 1200.0
"""Seconds that one check of a network gets before its process is ended."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the kit found.

    Attributes:
        plugin: Name of the plugin.
        distribution: Name and version of the distribution that it comes from.
        findings: In the order of the checks.
    """

    plugin: str
    distribution: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.passed for finding in self.findings)


def check_plugin(
    plugin: str,
    backbones: str = "*",
    stage: Stage = silent,
    seconds: float = SECONDS,
    log: Path | None = None,
) -> Report:
    """Run the kit on a plugin and on everything that it provides.

    Args:
        plugin: Name of its entry point.
        backbones: Glob of the keys or names of its backbones to build, run and train.
        stage: Told what is checked.
        seconds: What the plugin's import and each of its hooks get.
        log: File for what the plugin and its framework print; None for our stderr.

    Raises:
        UsageError: When there is no such plugin, or none of its backbones fits the glob.
    """
    stage(f"importing {plugin}", 0, 0)
    examination = examine(plugin, seconds, log)
    found = [f for check in PLUGIN_CHECKS for f in find(check, examination)]
    # To call a hook that hangs again, in this process, would hang it too.
    provided = _provided(plugin) if examination.usable else {}
    keys = _chosen(provided.get("backbones", ()), plugin, backbones) if provided else []
    for backbone in (get_plugins().backbone(key) for key in keys):
        with _process(backbone.backend, log) as host:
            found += check_backbone(backbone, stage, host)
    for name in provided.get("backends", ()):
        with _process(name, log) as host:
            found += check_backend(name, stage, host, keys)
    for name in provided.get("datasets", ()):
        found += check_dataset(name, stage)
    for name in provided.get("engines", ()):
        found += check_engine(name, stage)
    return Report(plugin, examination.distribution, tuple(found))


def check_backbone(
    backbone: Backbone, stage: Stage = silent, host: BackendHost | None = None
) -> list[Finding]:
    """Return what the kit finds of a backbone; see ``bench`` for the host."""
    with bench(backbone, host) as ready:
        found = _findings(FACTS_CHECKS, ready, stage)
        if any(not finding.passed for finding in found if finding.check == "description"):
            return found
        return found + _built(BENCH_CHECKS, ready, stage)


def check_backend(
    name: str,
    stage: Stage = silent,
    host: BackendHost | None = None,
    checked: Container[str] = (),
) -> list[Finding]:
    """Return what the kit finds of a backend, on the smallest of its backbones.

    Args:
        name: Of the backend.
        stage: Told what is checked.
        host: See ``bench``.
        checked: Keys of backbones that need not be checked again.
    """
    try:
        backbone = smallest_backbone(name)
    except PluginError as error:
        expected = "a backbone to check it with"
        return [Finding(f"backend {name}", "backbones", expected, reason(error), False)]
    checks = (*BACKEND_CHECKS, check_preprocessing, *TRAINER_CHECKS, *FINE_TUNE_CHECKS)
    with bench(backbone, host) as ready:
        return _built(checks if backbone.key in checked else BENCH_CHECKS + checks, ready, stage)


def check_dataset(name: str, stage: Stage = silent) -> list[Finding]:
    """Return what the kit finds of a data set."""
    stage(f"loading dataset {name}", 0, 0)
    try:
        with dataset_checks.loaded(name) as data:
            return _findings(dataset_checks.DATASET_CHECKS, data, stage)
    except PluginError as error:
        expected = "a data set that loads"
        return [Finding(f"dataset {name}", "loading", expected, reason(error), False)]


def check_engine(name: str, stage: Stage = silent) -> list[Finding]:
    """Return what the kit finds of an engine."""
    with engine_checks.crew(name) as team:
        return _findings(engine_checks.ENGINE_CHECKS, team, stage)


@contextmanager
def _process(backend: str, log: Path | None) -> Iterator[BackendHost | None]:
    """Start a process of a backend, if there is one: exports leave half a gigabyte in it each."""
    if backend not in get_plugins().backends:
        yield None
        return
    with BackendHost(backend, "cpu", THREADS, log) as host:
        yield host


@contextmanager
def bench(backbone: Backbone, host: BackendHost | None = None) -> Iterator[Bench]:
    """Put a backbone on a bench.

    Args:
        backbone: What to check.
        host: A process of its backend; None starts one, and ends it.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="automl-tl-check-", ignore_cleanup_errors=True)
        )
        if host is None:
            host = stack.enter_context(BackendHost(backbone.backend, "cpu", THREADS))
        yield Bench(backbone, host, Path(folder))


def check_build(ready: Bench) -> Iterator[Finding]:
    """The network can be built and described."""
    layers = len(ready.info.layers)
    expected = "a network that can be built and described"
    yield Finding(ready.key, "build", expected, f"{layers} layers", True)


def _built(
    checks: Iterable[Callable[[Bench], Iterable[Finding]]], ready: Bench, stage: Stage
) -> list[Finding]:
    """Run checks of a network; what the others rest on is said alone when it is wrong."""
    found: list[Finding] = []
    for check in (check_build, *checks):
        with _limited(ready.host):
            new = _findings((check,), ready, stage)
        found += new
        if check in _BASIC and not all(finding.passed for finding in new):
            break
    return found


_BASIC = (check_build, check_layers, check_output)


@contextmanager
def _limited(host: BackendHost) -> Iterator[None]:
    """End a backend's process when a check takes too long; the check then fails."""
    timer = threading.Timer(LIMIT, host.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _findings(
    checks: Iterable[Callable[[S], Iterable[Finding]]], thing: S, stage: Stage
) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        stage(f"{thing.subject}: {name_of(check)}", 0, 0)
        found += find(check, thing)
    return found


def _provided(plugin: str) -> Mapping[str, list[str]]:
    """Return the names that a plugin provides, a kind; nothing when it could not be loaded."""
    return next((one.provides for one in get_plugins().listing if one.name == plugin), {})


def _chosen(keys: Iterable[str], plugin: str, pattern: str) -> list[str]:
    """Return the keys that a glob of keys or names fits.

    Raises:
        UsageError: When a glob was given and none fits.
    """
    known = sorted(keys)
    chosen = [
        key
        for key in known
        if fnmatch.fnmatchcase(key, pattern) or fnmatch.fnmatchcase(key.partition("/")[2], pattern)
    ]
    if pattern != "*" and not chosen:
        has = f"it has {some(known)}" if known else "it provides none"
        raise UsageError(f"--backbone {pattern}: no backbone of {plugin} fits; {has}.")
    return chosen
