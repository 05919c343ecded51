"""A5: fine-tuning from a middle cut, against the script with its pixels cached."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from benchmarks import measure as measuring
from benchmarks import ours, rival, trials
from benchmarks.agreement import agree
from benchmarks.results import BenchError, Outcome, Table, Target, Track, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench

SHARE = "share of the ceiling"
BACKWARD = 1.6
"""A backward pass, in forward passes."""
COLUMNS = (
    *("pair", "ours, s an epoch", "ours, first epoch", "B0, s an epoch", "F, ms an image"),
    *("Fs, ms an image", "times faster", "ceiling", "ceiling, training alone", "share"),
)


@dataclass(frozen=True, slots=True)
class Passes:
    """Seconds of plain forward passes an image.

    Attributes:
        whole: Of the network, F.
        suffix: Of what is above the cut, Fs.
    """

    whole: float
    suffix: float

    def ceiling(self, training: int, validation: int) -> float:
        """Return how many times faster an epoch can be when the frozen part is stored.

        Args:
            training: Images that are trained on, forward and backward.
            validation: Images that are only predicted.
        """
        backward = BACKWARD * self.suffix
        without = training * (self.whole + backward) + validation * self.whole
        return without / (training * (self.suffix + backward) + validation * self.suffix)


def tuned(bench: Bench) -> Outcome:
    """Run interleaved pairs, each with a seed of its own, and time the plain passes in between."""
    count, epochs = bench.pick(3, 2, 1), bench.pick(6, 4, 3)
    listed = trials.tuned(count)
    settings = {
        **trials.COMMON,
        "fine_tune_at": f"features.{trials.CUT}.conv.0",
        "fine_tune_factor": 1.0,
        "augmentation": 0.0,
        "epochs": epochs,
        "image_size": bench.image_size,
    }
    asked = ours.Search(bench.split, ours.TORCH, settings, listed)
    training, validation = _images(bench)
    values: dict[int, list[float]] = {number: [] for number in range(count)}
    rivals: dict[int, list[float]] = {number: [] for number in range(count)}
    rows: list[tuple[Any, ...]] = []
    for pair in range(bench.pick(max(2, bench.pairs), 2, 1)):
        bench.say(f"pair {pair + 1}: our command, cold cache")
        mine = ours.search(bench, ours.seeded(asked, pair), bench.fresh("cache"))
        bench.say(f"pair {pair + 1}: B0 with its pixels cached")
        options = ("--pixels-cached",)
        theirs = rival.run(bench, "torch_folder", listed, epochs, *options, seeds=(pair,))
        bench.say(f"pair {pair + 1}: plain forward passes")
        passes = _passes(bench)
        for number, value in enumerate(mine.values):
            if value is None:
                raise BenchError(f"Our trial {number} failed: see {mine.study}.")
            values[number].append(value)
            rivals[number].append(theirs.accuracies[number])
        spent, took = _epoch(mine.epochs), _epoch([trial["epochs"] for trial in theirs.trials])
        ceiling = passes.ceiling(training, validation)
        first = median(trial[0] for trial in mine.epochs)
        plain = (1e3 * passes.whole, 1e3 * passes.suffix)
        limits = (ceiling, passes.ceiling(1, 0))
        faster = took / spent
        rows.append((pair + 1, spent, first, took, *plain, faster, *limits, faster / ceiling))
    found = agree(values, rivals)
    table = Table(f"Fine-tuning from block {trials.CUT} of 19", COLUMNS, rows)
    shares = [row[-1] for row in rows]
    note = (
        f"An epoch trains on {training} images and predicts {validation}; each trial's first "
        "epoch, in which activations are stored or found, does not count. F and Fs are forward "
        "passes of the whole network and its suffix in plain PyTorch, 32 images, channels last. "
        "Training "
        f"alone, the ceiling is (F + {BACKWARD} Fs) / {1 + BACKWARD} Fs; with the predictions, in "
        "which F / Fs can be saved, it is higher, and the share is of that one. B0 holds decoded "
        "pixels in RAM, so that it only computes."
    )
    return Outcome([measure(SHARE, shares, found.counts)], [table, found.table("B0")], [note])


def _epoch(trials_epochs: Sequence[Sequence[float]]) -> float:
    """Return the mean over trials of the median epoch after the first."""
    return fmean(median(epochs[1:]) for epochs in trials_epochs)


def _images(bench: Bench) -> tuple[int, int]:
    """Return the numbers of training and validation images."""
    with bench.split.open(encoding="utf-8", newline="") as file:
        counts = Counter(row["split"] for row in csv.DictReader(file))
    return counts["train"], counts["validation"]


def _passes(bench: Bench) -> Passes:
    folder = bench.fresh("forward")
    command = [
        *(sys.executable, str(rival.SCRIPTS / "forward.py"), str(trials.CUT)),
        *("--size", str(bench.image_size), "--threads", str(bench.threads)),
    ]
    found = json.loads(measuring.run(command, folder, bench.environment(folder)).out)
    return Passes(float(found["whole"]), float(found["suffix"]))


TRACKS = (
    Track(
        "A5",
        "Fine-tuning at a middle cut against B0 with pixels cached, share of the ceiling",
        (Target(SHARE, "", 0.85, 0.95),),
        tuned,
    ),
)
