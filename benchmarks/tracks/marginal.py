"""A4: what one more frozen trial costs."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks import ours, trials
from benchmarks.results import Outcome, Table, Target, Track, measure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

COLD = "seconds a trial, cold cache"
WARM = "seconds a trial, warm cache"


def marginal(bench: Bench) -> Outcome:
    """Run a short and a long list in turn; the difference is what the further trials cost."""
    short, long = bench.pick((20, 60), (10, 30), (2, 4))
    epochs = bench.pick(10, 10, 2)
    found: dict[str, list[tuple[float, float]]] = {COLD: [], WARM: []}
    walls: dict[tuple[str, int], list[float]] = {}
    for pair in range(bench.pick(bench.pairs, 1, 1)):
        for what, cold in ((COLD, True), (WARM, False)):
            spent = []
            for count in (short, long):
                bench.say(f"pair {pair + 1}: {count} trials, {what.partition(', ')[2]}")
                cache = bench.fresh("cache") if cold else bench.work / "cache"
                asked = ours.frozen(bench, ours.TORCH, trials.frozen(count), epochs)
                run = ours.search(bench, asked, cache).run
                spent.append((run.seconds, run.cpu))
                walls.setdefault((what, count), []).append(run.seconds)
            more = long - short
            wall, cpu = ((b - a) / more for a, b in zip(*spent, strict=True))
            found[what].append((wall, cpu))
    rows = []
    measures = []
    for what, each in found.items():
        wall = measure(what, [one[0] for one in each])
        cpu = measure(what, [one[1] for one in each])
        measures.append(wall)
        totals = [median(walls[what, count]) for count in (short, long)]
        rows.append((what.partition(", ")[2], *totals, wall.value, wall.low, wall.high, cpu.value))
    whole = (f"{short} trials, s", f"{long} trials, s")
    columns = ("cache", *whole, "s a trial", "low", "high", "CPU s a trial")
    note = (
        f"The whole command with {long} trials less that with {short}, divided by {long - short}; "
        "each block of 20 trials holds the same heads, optimizers and batch sizes. A figure at or "
        "below zero says that the machine was not quiet enough."
    )
    return Outcome(measures, [Table("One more frozen trial", columns, rows)], [note])


TRACKS = (
    Track(
        "A4",
        "Marginal cost of one more frozen trial (800 images, 10 epochs)",
        (
            Target(COLD, "s", 0.25, 0.03, "less"),
            Target(WARM, "s", 0.25, 0.03, "less"),
        ),
        marginal,
    ),
)
