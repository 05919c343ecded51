"""What a search tells each of its workers first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_tl.elsewhere import Elsewhere
from automl_tl.machine import available_cpus
from automl_tl.plugin_files import listed
from automl_tl.worker_setup import Setup

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.cache.store import Store
    from automl_tl.networks import Networks


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """Makes the first message to a worker, by its index.

    Attributes:
        directory: The study directory.
        networks: Its networks and pixel arrays.
        store: The cache.
        search: Identity of the search.
        trial_seconds: Longest that a trial may take; None for no bound.
        device: Of all workers, or ``auto``.
        gpus: What ``CUDA_VISIBLE_DEVICES`` should be for each worker of this machine.
        one_first: See ``devices.Room``.
    """

    directory: Path
    networks: Networks
    store: Store
    search: str
    trial_seconds: float | None
    device: str
    gpus: tuple[str | None, ...]
    one_first: bool = False

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""
        return max(1, available_cpus() // len(self.gpus))

    def here(self, index: int) -> Setup:
        """Return the message to a worker of this machine."""
        return self._setup(index, self.gpus[index])

    def elsewhere(self, index: int) -> Elsewhere:
        """Return the message to a worker that may run on another machine."""
        return Elsewhere(self._setup(index, None), listed())

    def _setup(self, index: int, gpu: str | None) -> Setup:
        return Setup(
            directory=self.directory,
            networks=self.networks,
            index=index,
            workers=len(self.gpus),
            device=self.device,
            gpu=gpu,
            threads=self.threads,
            host_threads=available_cpus() if self.one_first else self.threads,
            cache=self.store.root,
            cache_bytes=self.store.max_bytes,
            search=self.search,
            trial_seconds=self.trial_seconds,
        )
