"""What a framework's process finds in its environment, and what that spares."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import psutil
import pytest

from automl_tl import plugin_files, plugins
from automl_tl.host import BackendHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREEDY = """
import resource
from automl_tl.hookspecs import hookimpl
from automl_tl.specs import BackendSpec

class Greedy:
    def configure(self, device, threads):
        return "cpu"

    def run(self, *_):
        '''Take steps of 100 MiB; return how many pages were touched for the first time.'''
        for _ in range(3):
            [b"x" * 2**20 for _ in range(100)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            [b"x" * 2**20 for _ in range(100)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

@hookimpl
def automl_tl_backends():
    return [BackendSpec("greedy", Greedy, {})]
"""
MEBIBYTE = 2**20


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendHost]:
    (tmp_path / "greedy.py").write_text(GREEDY)
    monkeypatch.setenv(plugin_files.VARIABLE, str(tmp_path / "greedy.py"))
    for name in ("GLIBC_TUNABLES", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    plugins.get_plugins.cache_clear()
    yield BackendHost("greedy", "cpu", threads=1)
    plugins.get_plugins.cache_clear()


def memory(host: BackendHost) -> int:
    """Return the resident bytes of the framework's process."""
    return int(psutil.Process(host.child().process.pid).memory_info().rss)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")
def test_a_step_uses_the_memory_of_the_one_before_and_a_trials_memory_goes_back(
    greedy: BackendHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = 10 * 100 * MEBIBYTE // 4096
    with greedy as host:
        before = memory(host)
        assert host.call("run") < pages / 50
        assert memory(host) - before < 50 * MEBIBYTE
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # what a person sets there counts
    with greedy as host:
        assert host.call("run") > pages / 2


def test_threads_spin_for_a_moment_unless_a_person_says_otherwise(
    greedy: BackendHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(host: BackendHost) -> list[str | None]:
        found = psutil.Process(host.child().process.pid).environ()
        return [found.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]

    with greedy as host:
        assert waiting(host) == ["PASSIVE", "1000"]
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with greedy as host:
        assert waiting(host) == ["ACTIVE", None]
