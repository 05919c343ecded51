"""G1 and G2: what a GPU spends on training, and what several workers on it bring."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from automl_tl.recorded import open_study
from automl_tl.study import StudyDirectory
from benchmarks import measure as measuring
from benchmarks import ours, trials
from benchmarks.results import BenchError, Measure, Outcome, Table, Target, Track, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.bench import Bench

SHARE = "share of the bare loop's images a second"
MORE = "trials a minute, 8 workers over 1"
STEPS = (
    *("network", "pixels", "batch", "trained", "bare", "bare, CUDA graph", "ours"),
    *("share", "times bare"),
)
RATES = (
    *("trials", "workers a device", "trials a minute", "the same, start included", "wall s"),
    *("trials that failed", "GiB of the device a trial"),
)
_TRAINED = {
    "all": "all layers",
    "augmented": "all layers, augmented",
    "pixels": "upper half, from pixels",
    "stored": "upper half, from activations",
}
_MINUTE = 60.0


def steps(bench: Bench) -> Outcome:
    """Run our trainer and the bare loops in turns, in a process of their own."""
    folder = bench.fresh("steps")
    images, rounds = bench.pick(1280, 640, 8), bench.pick(5, 3, 1)
    command = [
        *(sys.executable, "-m", "benchmarks.steps", "--size", bench.size),
        *("--images", str(images), "--rounds", str(rounds)),
    ]
    done = measuring.run(command, folder, bench.environment(folder))
    found = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    if not found:
        raise BenchError("benchmarks.steps printed no result.")
    rows = [_row(one) for one in found]
    shares = [row[-2] for row in rows]
    note = (
        f"On {found[0]['device']} in {found[0]['precision']}, medians of {rounds} rounds in turns; "
        f"images a second over epochs of {images} images. The bare loops train on one synthetic "
        "batch that lies on the device; the share is of the one that replays a CUDA graph, as ours "
        "does, where there is one. Ours is our trainer with the rows of a memory-mapped array."
    )
    return Outcome([measure(SHARE, shares)], [Table("A training step", STEPS, rows)], [note])


def _row(found: Mapping[str, Any]) -> tuple[Any, ...]:
    mine, bare = median(found["ours"]), median(found["bare"])
    graph = median(found["bare_graph"]) if "bare_graph" in found else None
    what = (found["network"], found["side"], found["batch_size"], _TRAINED[found["where"]])
    return (*what, bare, graph, mine, mine / (graph or bare), mine / bare)


def workers(bench: Bench) -> Outcome:
    """Run the same trials with one worker on a device, and with several."""
    many = bench.pick(8, 8, 2)
    settings = {**trials.COMMON, "image_size": bench.image_size}
    tuned = {
        **settings,
        "fine_tune_at": f"features.{trials.CUT}.conv.0",
        "fine_tune_factor": 1.0,
        "augmentation": 0.0,
        "epochs": bench.pick(10, 10, 1),
    }
    frozen = {**settings, "depth": 0, "epochs": bench.pick(10, 10, 1)}
    lists = {
        "fine-tuning": ours.Search(
            bench.split, ours.TORCH, tuned, _varied(bench.pick(48, 24, 3)), seed=0
        ),
        "frozen": ours.Search(
            bench.split, ours.TORCH, frozen, trials.frozen(bench.pick(320, 160, 4))
        ),
    }
    cache = bench.fresh("cache")
    rows: list[tuple[Any, ...]] = []
    ratios = []
    for what, asked in lists.items():
        rates = []
        for count in (1, many):
            bench.say(f"{what}, {count} a device")
            more = ours.with_options(asked, "--workers-per-device", str(count))
            found = ours.search(bench, more, cache)
            rate, memory = _rate(found.study)
            failed = sum(value is None for value in found.values)
            whole = _MINUTE * len(found.values) / found.run.seconds
            rows.append((what, count, rate, whole, found.run.seconds, failed, memory))
            rates.append(rate)
        ratios.append(rates[1] / rates[0])
    note = (
        "The same list for all; the second and later runs find the arrays in the cache. A rate "
        "counts from the first trial's start to the last one's end; workers that start later than "
        "others count with what they then do."
    )
    table = Table("Workers that share a device", RATES, rows)
    return Outcome([Measure(MORE, ratios[0])], [table], [note])


def _varied(count: int) -> list[trials.Trial]:
    """Return fine-tuning trials of which no two are the same."""
    listed = trials.tuned(count)
    for number, trial in enumerate(listed):
        trial["learning_rate"] *= 1 + number / 1000
    return listed


def _rate(study: Path) -> tuple[float, float | None]:
    """Return trials a minute, and the most GiB of a device that one took."""
    found = open_study(StudyDirectory.open(study)).get_trials(deepcopy=False)
    starts = [one.datetime_start for one in found if one.datetime_start]
    ends = [one.datetime_complete for one in found if one.datetime_complete]
    taken: Sequence[int] = [
        one.user_attrs.get("facts", {}).get("device_memory") or 0 for one in found
    ]
    seconds = (max(ends) - min(starts)).total_seconds()
    return _MINUTE * len(ends) / seconds, max(taken) / 2**30 or None


TRACKS = (
    Track(
        "G1",
        "A fine-tuning step against the bare loop on synthetic data, on the best device there is",
        (Target(SHARE, "", 0.9),),
        steps,
        photos=False,
    ),
    Track(
        "G2",
        "Eight workers on one device against one",
        (Target(MORE, "x", 1.0),),
        workers,
    ),
)
