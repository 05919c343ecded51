"""Runs our command as a user types it, and reads what came of it from the study."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli_w

from automl_tl import Study
from benchmarks import measure, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.trials import Trial

TORCH = "torch/mobilenet_v2"
KERAS = "keras/MobileNetV2"
TINY = "torch/tiny"
"""Ships with its weights, so that no track needs others to run."""


@dataclass(frozen=True, slots=True)
class Search:
    """One ``automl-tl search`` to measure.

    Attributes:
        data: What is searched on.
        backbone: Its key.
        settings: Of the space.
        first: The list of trials to begin with; they are all there are.
        count: Trials, where there is no list.
        seed: Of the training.
        random: Start from random weights, where only the cost counts.
        options: Anything else to type.
    """

    data: Path
    backbone: str
    settings: Mapping[str, Any]
    first: Sequence[Trial] = ()
    count: int | None = None
    seed: int = 0
    random: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of it.

    Attributes:
        run: What the whole command cost.
        values: Validation accuracy of each trial, in order; None for one that failed.
        epochs: Seconds of each epoch of each trial.
        study: The study directory.
    """

    run: measure.Run
    values: list[float | None]
    epochs: list[list[float]]
    study: Path


def frozen(bench: Bench, backbone: str, listed: Sequence[Trial], epochs: int) -> Search:
    """Return the search that trains a list of heads on frozen features."""
    settings = {
        **trials.COMMON,
        "depth": 0,
        "epochs": epochs,
        "image_size": bench.image_size,
    }
    return Search(bench.split, backbone, settings, listed)


def seeded(asked: Search, seed: int) -> Search:
    """Return the same search with another seed of the training."""
    return replace(asked, seed=seed)


def search(
    bench: Bench,
    asked: Search,
    cache: Path,
    *,
    memory: bool = False,
    look: measure.Look | None = None,
) -> Searched:
    """Run a search in a new study.

    Args:
        bench: The circumstances.
        asked: What to search.
        cache: The cache; an empty one makes the run a cold one.
        memory: See ``measure.run``.
        look: Likewise.
    """
    folder = bench.fresh("ours")
    config: dict[str, Any] = {"set": dict(asked.settings)}
    if asked.backbone != TINY and (bench.weights == "none" or asked.random):
        config["weights"] = {asked.backbone: "none"}
    if asked.first:
        config["first"] = trials.for_us(asked.first)
    (folder / "study.toml").write_text(tomli_w.dumps(config))
    count = len(asked.first) if asked.first else asked.count
    command = [
        *(sys.executable, "-m", "automl_tl", "search", str(asked.data)),
        *("--study", str(folder / "study"), "--config", str(folder / "study.toml")),
        *("--backbone", asked.backbone, "--seed", str(asked.seed)),
        *(("--trials", str(count)) if count else ()),
        *asked.options,
    ]
    done = measure.run(command, folder, bench.environment(cache), memory=memory, look=look)
    found = Study.open(folder / "study").summary()["trials"]
    values = [trial["value"] if trial["state"] == "complete" else None for trial in found]
    epochs = [_epochs(folder / "study", trial["number"]) for trial in found]
    return Searched(done, values, epochs, folder / "study")


def _epochs(study: Path, number: int) -> list[float]:
    """Return the seconds of each epoch of a trial; none for one that failed."""
    history = study / "trials" / f"{number:05d}" / "history.json"
    if not history.exists():
        return []
    return [float(epoch["seconds"]) for epoch in json.loads(history.read_text())]
