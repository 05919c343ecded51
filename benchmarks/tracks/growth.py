"""A8: what happens as the work grows: more trials, more images, more workers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks import ours, trials
from benchmarks.measure import disk
from benchmarks.results import Measure, Outcome, Table, Target, Track

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.measure import Run

MEMORY = "peak resident memory"
FLAT = "cost of a trial, late / early"
GIB, MIB = 2**30, 2**20
COLUMNS = (
    *("what grows", "images", "trials", "workers", "wall s", "CPU s", "s a trial"),
    *("peak RSS, GiB", "peak PSS, GiB", "cache, MiB", "study, MiB"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One run: how much work, and what it cost."""

    images: int
    trials: int
    workers: int
    run: Run
    cache: int
    study: int

    def row(self, what: str) -> tuple[Any, ...]:
        """Return it as a row of the table."""
        run = self.run
        size = (self.images, self.trials, self.workers)
        memory = (run.rss / GIB, run.pss / GIB)
        cost = (run.seconds, run.cpu, run.seconds / self.trials)
        return (what, *size, *cost, *memory, self.cache / MIB, self.study / MIB)


def growth(bench: Bench) -> Outcome:
    """Run lists of growing length, on growing data, with one and with two workers."""
    some = bench.pick(800, 400, 30)
    lengths = bench.pick((10, 100, 300), (10, 40, 80), (1, 2, 3))
    sizes = bench.pick((400, 4_000, 40_000), (400, 1_600), (30, 60))
    many = bench.pick(100, 40, 2)
    _point(bench, some, lengths[0], 1)  # reads the programs from the disk; does not count
    longer = [_point(bench, some, count, 1) for count in lengths]
    points = [
        *(("trials", point) for point in longer),
        *(("images", _point(bench, size, lengths[0], 1)) for size in sizes),
        *(("workers", _point(bench, some, many, workers)) for workers in (1, 2)),
    ]
    further = [(b.run.seconds - a.run.seconds) / (b.trials - a.trials) for a, b in pairwise(longer)]
    measures = [
        Measure(MEMORY, max(point.run.rss for _, point in points) / GIB),
        Measure(FLAT, further[1] / further[0] if further[0] > 0 else None),
    ]
    spans = [f"{a.trials} to {b.trials}" for a, b in pairwise(longer)]
    tables = [
        Table("As the work grows", COLUMNS, [point.row(what) for what, point in points]),
        Table("One more trial", ("trials", "s"), list(zip(spans, further, strict=True))),
    ]
    notes = [
        f"Frozen trials of {_epochs(bench)} epochs on generated images at {bench.image_size} "
        "pixels and random weights, each from an empty cache. Memory is the peak of the whole tree "
        "of processes, looked at four times a second. RSS counts what processes share once for "
        "each, and those pages of the memory-mapped cache that were touched last; PSS divides what "
        "is shared."
    ]
    return Outcome(measures, tables, notes)


def _point(bench: Bench, images: int, count: int, workers: int) -> Point:
    bench.say(f"{images} images, {count} trials, {workers} workers, cold cache")
    cache = bench.fresh("cache")
    settings = {**trials.COMMON, "depth": 0, "epochs": _epochs(bench)}
    asked = ours.Search(
        bench.generated("growth", images),
        ours.TORCH,
        {**settings, "image_size": bench.image_size},
        trials.frozen(count),
        random=True,
        options=("--workers", str(workers)),
    )
    found = ours.search(bench, asked, cache, memory=True)
    return Point(images, count, workers, found.run, disk(cache), disk(found.study))


def _epochs(bench: Bench) -> int:
    return bench.pick(10, 10, 1)


TRACKS = (
    Track(
        "A8",
        "Cost as the work grows: trials, images, workers",
        (
            Target(MEMORY, "GiB", 1.5, None, "less"),
            Target(FLAT, "", 1.25, 1.0, "less"),
        ),
        growth,
        photos=False,
    ),
)
