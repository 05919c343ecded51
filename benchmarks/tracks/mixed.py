"""A6: a mixed space; the time to the accuracy that B0 reaches with forty trials."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks import ours, rival
from benchmarks.results import Measure, Outcome, Table, Target, Track, measure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

FASTER = "times faster to B0's accuracy"
SEEDS = (0, 1, 2)


def mixed(bench: Bench) -> Outcome:
    """Let B0 search as long as its budget allows; then let us search until we are as good."""
    count, epochs = bench.pick(40, 40, 2), bench.pick(10, 3, 1)
    budget = bench.pick(bench.budget, min(bench.budget, 240.0), 10.0)
    bench.say(f"B0 proposes up to {count} trials, for {budget:.0f} s")
    options = ("--sample", str(count), "--budget", str(budget))
    theirs = rival.run(bench, "torch_folder", [], epochs, *options)
    best = max(theirs.accuracies)
    first = theirs.accuracies.index(best)
    reached = theirs.setup + sum(trial["seconds"] for trial in theirs.trials[: first + 1])
    each = fmean(trial["seconds"] for trial in theirs.trials)
    scaled = theirs.setup + count * each
    settings = {"image_size": bench.image_size}
    limit = ("--target", str(best), "--time", f"{max(30, round(budget))}s")
    ran = len(theirs.trials)
    rows: list[tuple[object, ...]] = [
        ("B0", ran, best, theirs.run.seconds, theirs.run.cpu, reached, None, None)
    ]
    walls = []
    for seed in bench.pick(SEEDS, SEEDS[:1], SEEDS[:1]):
        bench.say(f"our command, until {best:.4f}, seed {seed}")
        asked = ours.Search(bench.split, ours.TORCH, settings, seed=seed, options=limit)
        mine = ours.search(bench, asked, bench.fresh("cache"))
        found = max((value for value in mine.values if value is not None), default=0.0)
        ended = mine.run.seconds if found >= best else None
        faster = (reached / ended, scaled / ended) if ended else (None, None)
        spent = (mine.run.seconds, mine.run.cpu)
        rows.append((f"ours, seed {seed}", len(mine.values), found, *spent, ended, *faster))
        walls.append(ended)
    columns = (
        *("who", "trials", "best accuracy", "wall s", "CPU s", "s to B0's accuracy"),
        *("times faster", f"than its {count} trials"),
    )
    notes = [
        f"B0 finished {ran} of {count} trials within its {budget:.0f} s and was best after "
        f"{reached:.0f} s; {count} trials would take {scaled:.0f} s at its {each:.1f} s a trial. "
        "Ours is the whole command, with its own defaults, from a cold cache to its end."
    ]
    if ran < count:
        notes.append(
            f"What B0 would reach with all {count} is not known: the target is its best of {ran}, "
            "and the time that counts is the one after which it had that."
        )
    if None in walls:
        notes.append("Ours did not reach it with every seed, so there is no ratio.")
        return Outcome([Measure(FASTER, None)], [Table("Mixed space", columns, rows)], notes)
    times = [reached / wall for wall in walls if wall]
    return Outcome([measure(FASTER, times)], [Table("Mixed space", columns, rows)], notes)


TRACKS = (
    Track(
        "A6",
        "Mixed space, time to the accuracy that B0 reaches with 40 trials",
        (Target(FASTER, "x", 4, 10),),
        mixed,
    ),
)
