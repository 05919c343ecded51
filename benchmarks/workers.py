"""More workers against one: trials an hour, and what limits them.

    python -m benchmarks.workers [--engine local|ray] [--data FOLDER] [--backbone KEY] [--pairs N]

Two local workers; or four Ray actors on a two-node cluster of this machine, where each node has as
many CPUs as the machine, so that together they have twice of what is really there. The features
are stored before anything is timed. A rate counts from the first trial that is asked for to the
last that is finished, so without the start of Ray and of the workers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from automl_tl import Study
from benchmarks import trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MORE = {"local": 2, "ray": 4}
"""Workers that are compared with one, by engine."""


@dataclass
class Clock:
    """Listens to a search, and takes the time and the machine's busy CPU seconds of its trials."""

    began: float = 0.0
    busy: float = 0.0
    rates: tuple[float, float] = (0.0, 0.0)
    failed: list[str] = field(default_factory=list)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear what happens."""
        if event["event"] == "trial_asked" and not self.began:
            self.began, self.busy = time.monotonic(), _busy()
        elif event["event"] == "trial_finished":
            self.rates = time.monotonic() - self.began, _busy() - self.busy
            if event["state"] != "complete":
                self.failed.append(f"trial {event['number']}: {event['state']} {event['reason']}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=MORE, default="local")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--backbone", default="torch/tiny")
    parser.add_argument("--frozen", type=int, default=200)
    parser.add_argument("--tuned", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        os.environ["AUTOML_TL_CACHE"] = str(Path(folder) / "cache")
        with ExitStack() as stack:
            engine_options = {}
            if options.engine == "ray":
                engine_options = stack.enter_context(_two_nodes(Path(folder)))
            _measure(options, Path(folder), engine_options)


def _measure(options: argparse.Namespace, folder: Path, engine_options: Mapping[str, Any]) -> None:
    compared = (1, MORE[options.engine])
    lists: dict[str, tuple[list[trials.Trial], dict[str, Any]]] = {
        "frozen": (trials.frozen(options.frozen), {"depth": 0, "epochs": 10}),
        "fine-tuning": (trials.for_us(trials.tuned(options.tuned)), {"depth": 0.5, "epochs": 3}),
    }
    names = (f"study-{number}" for number in count())
    table = Table("trials", "workers", "a trial, s", "trials an hour", "busy cores", "against one")
    for kind, (listed, settings) in lists.items():
        found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in compared}
        for pair in range(-1, options.pairs):  # the first stores what the others read
            for workers in compared[:: 1 if pair % 2 else -1]:
                clock = Clock()
                study = Study.create(
                    folder / next(names),
                    options.data,
                    backbones=[options.backbone],
                    settings={**trials.COMMON, **settings},
                    first=listed,
                )
                study.search(
                    trials=len(listed),
                    workers=workers,
                    engine=options.engine,
                    engine_options=engine_options,
                    listener=clock,
                )
                if clock.failed:
                    sys.exit("; ".join(clock.failed[:3]))
                wall, busy = clock.rates
                sys.stderr.write(f"{kind}, {workers} at work: {wall:.1f} s, {busy:.1f} CPU s\n")
                if pair >= 0:
                    found[workers].append(clock.rates)
        for workers, runs in found.items():
            table.add_row(*_row(kind, workers, len(listed), runs, found[1]))
    Console().print(table)
    Console().print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {options.pairs}"
    )


def _row(
    kind: str,
    workers: int,
    number: int,
    runs: Sequence[tuple[float, float]],
    alone: Sequence[tuple[float, float]],
) -> tuple[str, ...]:
    seconds = median(wall for wall, _ in runs)
    cores = median(busy / wall for wall, busy in runs)
    times = median(wall for wall, _ in alone) / seconds
    an_hour = f"{3600 * number / seconds:,.0f}"
    return kind, str(workers), f"{seconds / number:.3f}", an_hour, f"{cores:.2f}", f"{times:.2f} x"


@contextmanager
def _two_nodes(folder: Path) -> Iterator[dict[str, Any]]:
    """Start a cluster of two nodes, each with a cache of its own; give what leads to it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cpus = os.cpu_count()
    nodes = import_module("ray.cluster_utils")
    caches = [{"AUTOML_TL_CACHE": str(folder / f"cache-{node}")} for node in (0, 1)]
    head = {"num_cpus": cpus, "include_dashboard": False, "env_vars": caches[0]}
    cluster = nodes.Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=cpus, env_vars=caches[1])
    cluster.wait_for_nodes()
    try:
        yield {"address": cluster.address}
    finally:
        cluster.shutdown()


def _busy() -> float:
    """CPU seconds that this machine has worked, for anybody."""
    psutil = import_module("psutil")
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


if __name__ == "__main__":
    main()
