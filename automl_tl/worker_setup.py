"""What a supervisor tells a worker once, before the first trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.host import BackendHost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from automl_tl.networks import Networks
    from automl_tl.study import StudyDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the supervisor tells a worker once.

    Attributes:
        directory: The study directory.
        networks: Networks and pixel arrays.
        index: Which worker this is.
        workers: How many there are, as far as that is known.
        device: Its device, or ``auto``.
        gpu: What ``CUDA_VISIBLE_DEVICES`` should be for it; None leaves it as it is.
        threads: Its CPU threads.
        host_threads: Those of its framework, which are all where the other workers wait for it.
        cache: Root of the cache.
        cache_bytes: Bound of the cache.
        search: Identity of the search.
        trial_seconds: Longest that a trial may take; None for no bound.
    """

    directory: Path
    networks: Networks
    index: int
    workers: int
    device: str
    gpu: str | None
    threads: int
    host_threads: int
    cache: Path
    cache_bytes: int
    search: str
    trial_seconds: float | None = None

    def settle(self, say: Callable[[Mapping[str, Any]], None]) -> Setup:
        """Return what to work on, as ``Elsewhere`` does: all of it is prepared on this machine."""
        return self


def new_host(setup: Setup, directory: StudyDirectory, name: str) -> BackendHost:
    """Return a worker's host of a backend, which is not started."""
    return BackendHost(name, setup.device, setup.host_threads, directory.log(setup.index))
