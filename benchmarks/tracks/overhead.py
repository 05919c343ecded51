"""A9: what Optuna and our bookkeeping cost, a trial, as a study grows long."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from automl_tl import storage
from benchmarks import ours
from benchmarks.results import BenchError, Measure, Outcome, Table, Target, Track

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.ours import Searched

OVERHEAD = "ms a trial at the end"


def overhead(bench: Bench) -> Outcome:
    """Run a long study of heads that train for one epoch on a few tiny images."""
    count = bench.pick(1000, 200, 6)
    window = max(2, count // 20)
    places = bench.pick((100, 500, 1000), (50, 100, 200), (3, 6))
    settings = {"depth": 0, "epochs": 1, "warmup_epochs": 0}
    bench.say(f"{count} trials of one epoch")
    data = bench.generated("tiny", 60)
    asked = ours.Search(data, ours.TINY, settings, count=count)
    found = ours.search(bench, asked, bench.fresh("cache"))
    each = _trials(found)
    if len(each) < count:
        raise BenchError(f"Only {len(each)} of {count} trials were told: see {found.study}.")
    rows = []
    for place in places:
        whole = (each[place - 1][0] - each[place - 1 - window][0]) / window
        training = fmean(seconds for _, seconds in each[place - window : place])
        rows.append((place, 1e3 * whole, 1e3 * training, 1e3 * max(0.0, whole - training)))
    columns = ("trial", "ms a trial", "ms training", "ms overhead")
    total = (found.run.seconds, found.run.cpu)
    tables = [
        Table("Between two trials' ends", columns, rows),
        Table("The whole command", ("trials", "wall s", "CPU s"), [(count, *total)]),
    ]
    note = (
        "60 images, torch/tiny, heads of one epoch, Optuna's sampler at work. A row is the mean of "
        f"{window} trials up to it: the time from one trial's end to the next one's, less the "
        "seconds that its epoch took. Asking, planning, telling, metrics, files and messages are "
        "overhead."
    )
    return Outcome([Measure(OVERHEAD, rows[-1][-1])], tables, [note])


def _trials(found: Searched) -> list[tuple[float, float]]:
    """Return when each trial ended, ascending, and the seconds that it trained."""
    study = storage.open_optuna(found.study, None, found.study.name, 0)
    ends = {
        trial.number: trial.datetime_complete.timestamp()
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_complete
    }
    order = sorted(ends, key=ends.__getitem__)
    return [(ends[number], sum(found.epochs[number])) for number in order]


TRACKS = (
    Track(
        "A9",
        "Overhead of Optuna and our bookkeeping a trial, at 1,000 trials",
        (Target(OVERHEAD, "ms", 50, 15, "less"),),
        overhead,
        photos=False,
    ),
)
