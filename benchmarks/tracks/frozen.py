"""A1, A2, A3: a list of frozen trials, our whole command against the scripts of others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import ours, rival, trials
from benchmarks.agreement import agree
from benchmarks.results import BenchError, Outcome, Table, Target, Track, measure, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench
    from benchmarks.ours import Search, Searched
    from benchmarks.rival import Rival

COLD = "times faster, cold cache"
SEEDS = (0, 1, 2)
STRIDE = 7
"""Between the trials that a rival runs in successive pairs: linear and hidden heads alike."""


@dataclass(frozen=True, slots=True)
class Side:
    """Who is measured against what.

    Attributes:
        backbone: Of our search.
        script: The rival's.
        name: What the tables call it.
        part: Trials that the rival runs in each pair; None for the whole list.
    """

    backbone: str
    script: str
    name: str
    part: int | None


def compare(bench: Bench, side: Side) -> Outcome:
    """Run interleaved pairs, then what shows that the accuracies agree."""
    count, epochs = bench.pick(20, 20, 3), bench.pick(10, 10, 2)
    listed = trials.frozen(count)
    part = side.part and min(side.part, count)
    asked = ours.frozen(bench, side.backbone, listed, epochs)
    cold: list[Searched] = []
    theirs: list[Rival] = []
    values: dict[int, list[float]] = defaultdict(list)
    rivals: dict[int, list[float]] = defaultdict(list)
    for pair in range(bench.pick(bench.pairs, 1, 1)):
        bench.say(f"pair {pair + 1}: our command, cold cache")
        cache = bench.fresh("cache")
        cold.append(ours.search(bench, asked, cache))
        picked = (
            list(range(count))
            if part is None
            else [(STRIDE * pair + k) % count for k in range(part)]
        )
        bench.say(f"pair {pair + 1}: {side.name}, {len(picked)} of {count} trials")
        theirs.append(rival.run(bench, side.script, [listed[k] for k in picked], epochs))
        if part or pair == 0:
            for number, accuracy in zip(picked, theirs[-1].accuracies, strict=True):
                rivals[number].append(accuracy)
    warm = _seeds(bench, asked, values)
    if part is None:
        bench.say(f"{side.name} with other seeds")
        again = rival.run(bench, side.script, listed, epochs, seeds=SEEDS[1:])
        for number, accuracy in enumerate(again.accuracies):
            rivals[number % count].append(accuracy)
    found = agree(values, rivals)
    wall = ratios([run.whole(count) for run in theirs], [run.run.seconds for run in cold])
    tables = [_table(cold, warm, theirs, side, count), found.table(side.name)]
    return Outcome([measure(COLD, wall, found.counts)], tables, _notes(theirs, side, count))


def _seeds(bench: Bench, asked: Search, values: dict[int, list[float]]) -> list[Searched]:
    """Run our list with every seed on the warm cache; fills in the accuracies."""
    runs = []
    for seed in SEEDS:
        bench.say(f"our command, warm cache, seed {seed}")
        search = ours.seeded(asked, seed)
        runs.append(ours.search(bench, search, bench.work / "cache"))
        for number, value in enumerate(runs[-1].values):
            if value is None:
                raise BenchError(f"Our trial {number} failed: see {runs[-1].study}.")
            values[number].append(value)
    return runs


def _table(
    cold: Sequence[Searched],
    warm: Sequence[Searched],
    theirs: Sequence[Rival],
    side: Side,
    count: int,
) -> Table:
    """Return medians of wall and CPU seconds, ours and the rival's."""
    each = [trial["seconds"] for run in theirs for trial in run.trials]
    scaled = side.name if side.part is None else f"{side.name}, scaled"
    sides = (
        ("automl-tl, cold cache", [(run.run.seconds, run.run.cpu) for run in cold], None),
        ("automl-tl, warm cache", [(run.run.seconds, run.run.cpu) for run in warm], None),
        (scaled, [(run.whole(count), run.whole(count, cpu=True)) for run in theirs], median(each)),
    )
    rows: list[tuple[Any, ...]] = []
    for name, spent, trial in sides:
        wall, cpu = (median(column) for column in zip(*spent, strict=True))
        base = rows[0] if rows else (name, wall, cpu)
        rows.append((name, wall, cpu, wall / base[1], cpu / base[2], trial))
    columns = ("median", "wall s", "CPU s", "wall / ours", "CPU / ours", "s inside a trial")
    return Table(f"{count} frozen trials", columns, rows)


def _notes(theirs: Sequence[Rival], side: Side, count: int) -> list[str]:
    setup = median(run.setup for run in theirs)
    if side.part is None:
        return [f"{side.name} ran the whole list; {setup:.1f} s of it lie outside of its trials."]
    ran = len(theirs[0].trials)
    return [
        f"{side.name} ran {ran} of {count} trials in each pair, other ones each time; scaled: "
        f"its {setup:.1f} s outside of trials, and the mean of its trials {count} times"
        + (" (the first counted once)." if ran > 1 else ".")
    ]


B0 = Side(ours.TORCH, "torch_folder", "B0, ImageFolder script", 1)
B2 = Side(ours.TORCH, "torch_features", "B2, expert's features", None)
B1 = Side(ours.KERAS, "keras_guide", "B1, Keras guide with cache()", 3)

TRACKS = (
    Track(
        "A1",
        "Twenty frozen trials x 10 epochs, whole command, against B0",
        (Target(COLD, "x", 60, 150),),
        lambda bench: compare(bench, B0),
    ),
    Track(
        "A2",
        "The same against B2, the expert's script",
        (Target(COLD, "x", 1.5, 3),),
        lambda bench: compare(bench, B2),
    ),
    Track(
        "A3",
        "The same with Keras, against B1",
        (Target(COLD, "x", 20, 60),),
        lambda bench: compare(bench, B1),
    ),
)
