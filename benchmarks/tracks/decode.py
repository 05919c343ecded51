"""A7: images decoded and resized a second, on one thread, against torchvision's ImageFolder."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import data, measure, rival
from benchmarks.results import Outcome, Table, Target, Track, ratios
from benchmarks.results import measure as figure

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

SMALL = "times faster, the photographs"
LARGE = "times faster, 12 megapixels"


def decode(bench: Bench) -> Outcome:
    """Let both take turns over the photographs, and over generated ones of 12 megapixels."""
    large = bench.work / "data" / "megapixels"
    if not large.exists():
        bench.say("generating photographs of 12 megapixels")
        data.photographs(large, bench.pick(24, 6, 1))
    measures, rows = [], []
    for what, folder in ((SMALL, bench.photos), (LARGE, large)):
        ours, theirs = [], []
        for pair in range(bench.pick(max(5, bench.pairs), 2, 1)):
            bench.say(f"pair {pair + 1}: {folder.name}")
            ours.append(_rate(bench, ("-m", "benchmarks.decoding"), folder))
            theirs.append(_rate(bench, (str(rival.SCRIPTS / "torchvision_decode.py"),), folder))
        faster = figure(what, ratios([1 / one for one in theirs], [1 / one for one in ours]))
        measures.append(faster)
        rates = (median(ours), median(theirs))
        rows.append((folder.name, *rates, faster.value, faster.low, faster.high))
    columns = ("images", "ours, a CPU second", "ImageFolder, a CPU second", "times", "low", "high")
    note = (
        f"One thread each, {bench.image_size} pixels, files in the system's cache, CPU seconds "
        "so that other programs do not count. Ours reads, hashes, checks, decodes and squashes; "
        "ImageFolder reads, decodes, resizes with antialias and makes a uint8 tensor."
    )
    return Outcome(measures, [Table("Decode and resize", columns, rows)], [note])


def _rate(bench: Bench, program: tuple[str, ...], folder: Path) -> float:
    """Return images a CPU second."""
    command = (sys.executable, *program, str(folder), "--size", str(bench.image_size))
    place = bench.fresh("decode")
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = measure.run(command, place, {**bench.environment(place), **one})
    found = json.loads(done.out)
    return float(found["images"] / found["cpu"])


TRACKS = (
    Track(
        "A7",
        "Decode and resize, images a second and core, against torchvision's ImageFolder",
        (Target(SMALL, "x", 2, 4), Target(LARGE, "x", 2, 4)),
        decode,
    ),
)
