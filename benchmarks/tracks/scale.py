"""S1 and S2: a study of ten thousand trials, and a data set of a million entries."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import measure, ours
from benchmarks.results import BenchError, Measure, Outcome, Table, Target, Track
from benchmarks.roles import ROLES, Roles

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

LATE = "CPU of a trial, 10,000th / 1,000th"
MOST = "CPU of an entry, most / fewer"
MIB = 2**20
WINDOW = 500
FILES = 800
"""Images that the entries of a large data set lead to."""
SETTINGS = {"depth": 0, "epochs": 1, "warmup_epochs": 0}


def long_study(bench: Bench) -> Outcome:
    """Run one long study of small heads, and then what people do with it."""
    count = bench.pick(10_000, 1_000, 30)
    places = bench.pick((100, 1_000, 10_000), (100, 500, 1_000), (10, 20, 30))
    bench.say(f"{count} trials of one epoch")
    folder, roles = bench.fresh("ours"), Roles()
    asked = ours.Search(bench.generated("long", 200), ours.TINY, SETTINGS, count=count)
    cache = bench.fresh("cache")
    found = ours.search(bench, asked, cache, look=roles.look(folder / "stdout.txt"))
    if len(found.values) < count:
        raise BenchError(f"Only {len(found.values)} of {count} trials: see {found.study}.")
    rows = [(place, *roles.at(place, min(WINDOW, place // 2))) for place in places]
    later = [_afterwards(bench, found.study, cache, *words) for words in _COMMANDS]
    cpu = [row[1] + row[2] for row in rows]
    disk = measure.disk(found.study) / MIB
    memory = tuple(f"{role}, RSS MiB" for role in ROLES)
    tables = [
        Table(
            "One more trial",
            ("trials", "worker, ms CPU", "supervisor, ms CPU", *memory),
            rows,
        ),
        Table("The study", ("command", "wall s", "CPU s", "peak RSS, MiB", "MiB"), later),
        Table("On disk", ("trials", "MiB", "KiB a trial"), [(count, disk, 1024 * disk / count)]),
    ]
    note = (
        "200 images, torch/tiny, heads of one epoch, Optuna's sampler at work. A row is the mean "
        f"of the trials up to it, {WINDOW} at most and half of them at most. The framework's "
        "process has nothing to do by then."
    )
    return Outcome([Measure(LATE, cpu[-1] / cpu[1] if cpu[1] else None)], tables, [note])


_COMMANDS = (("show",), ("show", "--json"), ("report",))


def _afterwards(
    bench: Bench, study: Path, cache: Path, command: str, *options: str
) -> tuple[Any, ...]:
    folder = bench.fresh("afterwards")
    output = folder / "report.html"
    words = [command, str(study), *options, *(("-o", str(output)) if command == "report" else ())]
    done = measure.run(
        [sys.executable, "-m", "automl_tl", *words], folder, bench.environment(cache)
    )
    size = output.stat().st_size if output.exists() else len(done.out)
    said = " ".join((command, *options))
    return (said, done.seconds, done.cpu, done.rss / MIB, size / MIB)


def many_entries(bench: Bench) -> Outcome:
    """Check and search tables that grow tenfold, whose entries lead to the same few files."""
    sizes = bench.pick((10_000, 100_000, 1_000_000), (1_000, 10_000), (60, 120))
    files = bench.pick(FILES, FILES, 30)
    rows = []
    for size in sizes:
        bench.say(f"{size} entries")
        table = _table(bench, bench.generated("entries", files), size)
        rows += [_checked(bench, table, size), _searched(bench, table, size)]
    each = [row[4] for row in rows if row[1] == "search"]
    columns = (
        *("entries", "command", "wall s", "CPU s", "CPU µs an entry"),
        *(f"{role}, peak RSS MiB" for role in ROLES),
        *("cache, MiB", "study, MiB"),
    )
    note = (
        f"A CSV whose entries lead to {files} generated files through linked folders; each entry "
        "has a row of pixels and of features of its own. `search` is one frozen trial of one "
        "epoch with torch/tiny at 32 pixels, from an empty cache: indexing, hashing, decoding, "
        "splitting, looking for look-alikes, the frozen layers, the head, the test split."
    )
    ratio = each[-1] / each[-2] if each[-2] else None
    return Outcome([Measure(MOST, ratio)], [Table("As the table grows", columns, rows)], [note])


def _table(bench: Bench, pictures: Path, size: int) -> Path:
    """Write a CSV of so many entries; returns its path."""
    folder = bench.fresh(f"entries-{size}")
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg"))
    table = folder / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label"))
        for number in range(size):
            turn, place = divmod(number, len(names))
            link = folder / f"{turn:05d}"
            if place == 0:
                link.symlink_to(pictures, target_is_directory=True)
            label = names[place].partition("/")[0]
            writer.writerow((f"{link.name}/{names[place]}", label))
    return table


def _checked(bench: Bench, table: Path, size: int) -> tuple[Any, ...]:
    roles, folder = Roles(), bench.fresh("afterwards")
    command = [sys.executable, "-m", "automl_tl", "data", "check", str(table), "--json"]
    environment = bench.environment(bench.fresh("cache"))
    done = measure.run(command, folder, environment, look=roles.look(folder / "stdout.txt"))
    return _row(size, "data check", done, roles, 0, 0)


def _searched(bench: Bench, table: Path, size: int) -> tuple[Any, ...]:
    roles, cache = Roles(), bench.fresh("cache")
    asked = ours.Search(table, ours.TINY, {**SETTINGS, "image_size": 32}, count=1)
    look = roles.look(bench.fresh("ours") / "stdout.txt")
    found = ours.search(bench, asked, cache, look=look)
    return _row(size, "search", found.run, roles, measure.disk(cache), measure.disk(found.study))


def _row(
    size: int, what: str, run: measure.Run, roles: Roles, cache: int, study: int
) -> tuple[Any, ...]:
    cost = (run.seconds, run.cpu, 1e6 * run.cpu / size)
    return (size, what, *cost, *roles.peaks(), cache / MIB, study / MIB)


TRACKS = (
    Track(
        "S1",
        "Scale: a study of 10,000 trials",
        (Target(LATE, "", 1.25, 1.0, "less"),),
        long_study,
        photos=False,
    ),
    Track(
        "S2",
        "Scale: a data set of 1,000,000 entries",
        (Target(MOST, "", 1.25, 1.0, "less"),),
        many_entries,
        photos=False,
    ),
)
