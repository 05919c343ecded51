"""What each of a search's processes costs while it goes on: supervisor, workers, frameworks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ROLES = ("worker", "supervisor", "framework")
_MODULES = {"automl_tl.worker_process": "worker", "automl_tl.hosted": "framework"}
MIB = 2**20


@dataclass(frozen=True, slots=True)
class _Sample:
    """One look.

    Attributes:
        trials: Finished by then, as the command said.
        cpu: Seconds of each role so far.
        rss: Resident bytes of each role.
    """

    trials: int
    cpu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 0.0))
    rss: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))


class Roles:
    """Collects what the processes of a search cost, for ``measure.run``."""

    def __init__(self) -> None:
        self._samples: list[_Sample] = []

    def look(self, said: Path) -> Callable[[Sequence[psutil.Process]], None]:
        """Return what looks at the processes of a command.

        Args:
            said: The command's output, a line for each finished trial.
        """
        read, trials = 0, 0

        def look(processes: Sequence[psutil.Process]) -> None:
            nonlocal read, trials
            if said.exists():
                with said.open("rb") as file:
                    file.seek(read)
                    new = file.read()
                read += len(new)
                trials += new.count(b"\ntrial ")
            sample = _Sample(trials)
            for process in processes:
                try:
                    words, times = process.cmdline(), process.cpu_times()
                    role = next((_MODULES[word] for word in words if word in _MODULES), ROLES[1])
                    sample.cpu[role] += times.user + times.system
                    sample.rss[role] += process.memory_info().rss
                except psutil.Error:
                    continue
            self._samples.append(sample)

        return look

    def peaks(self) -> tuple[float, ...]:
        """Return the most MiB that each role had, in the order of ``ROLES``."""
        return tuple(
            max((sample.rss[role] for sample in self._samples), default=0) / MIB for role in ROLES
        )

    def at(self, trials: int, window: int) -> tuple[float, ...]:
        """Return what one more trial costs when so many are finished.

        Args:
            trials: How many.
            window: The mean is of so many trials up to it.

        Returns:
            Milliseconds of CPU of the worker and of the supervisor, and each role's MiB.
        """
        alive = [sample for sample in self._samples if sample.cpu[ROLES[0]]]
        within = [sample for sample in alive if sample.trials <= trials] or self._samples[:1]
        last = max(within, key=lambda sample: sample.trials)
        first = max(
            (sample for sample in within if sample.trials <= last.trials - window),
            key=lambda sample: sample.trials,
            default=within[0],
        )
        count = max(1, last.trials - first.trials)
        cpu = [1e3 * (last.cpu[role] - first.cpu[role]) / count for role in ROLES[:2]]
        return (*cpu, *(last.rss[role] / MIB for role in ROLES))
