"""What the rivals share and what is not measured: their arguments, the split, the space, the clock.

The scripts beside this file run alone: ``python benchmarks/rivals/torch_folder.py --help``.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

BATCHES = (16, 32, 64)
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")
Row = tuple[str, int]
Train = Callable[[dict[str, Any], int], tuple[list[float], list[float]]]


def arguments(description: str) -> argparse.Namespace:
    """Read the command line; adds ``trials``, ``epochs``, ``rows`` and ``classes``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("split", type=Path, help="CSV with path,label,split")
    parser.add_argument("--list", type=Path, help="JSON with epochs and trials")
    parser.add_argument("--sample", type=int, help="let Optuna propose this many trials instead")
    parser.add_argument("--budget", type=float, help="seconds after which no trial begins")
    parser.add_argument("--epochs", type=int, default=10, help="of every trial, without a list")
    parser.add_argument("--size", type=int, default=160, help="side of the input in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the sampler, without a list")
    parser.add_argument("--weights", default="imagenet", help="imagenet or none")
    parser.add_argument("--pixels-cached", action="store_true", help="keep decoded pixels in RAM")
    options = parser.parse_args()
    options.trials = None
    if options.list:
        content = json.loads(options.list.read_text())
        options.trials, options.epochs = content["trials"], content["epochs"]
    options.rows, options.classes = _read(options.split)
    return options


def _read(table: Path) -> tuple[dict[str, list[Row]], list[str]]:
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    classes = sorted({line["label"] for line in lines})
    rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for line in lines:
        rows[line["split"]].append((line["path"], classes.index(line["label"])))
    return rows, classes


def clock() -> tuple[float, float]:
    """Return wall and CPU seconds, those of ended child processes included."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in spent)


def optimize(options: argparse.Namespace, train: Train, cuts: tuple[int, ...] = ()) -> None:
    """Run the trials through Optuna, and print a line of JSON for each.

    Args:
        options: From ``arguments``.
        train: Trains a trial's parameters with a seed; returns each epoch's validation accuracy
            and seconds.
        cuts: Where fine-tuning may begin, the last one meaning nowhere; fixed to that without any.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        wall, cpu = clock()
        params = _suggest(trial, cuts)
        seed = options.trials[trial.number]["seed"] if options.trials else trial.number
        accuracies, seconds = train(params, seed)
        after, cpu_after = clock()
        report = {
            "trial": trial.number,
            "seconds": after - wall,
            "cpu": cpu_after - cpu,
            "accuracy": accuracies[-1],
            "epochs": seconds,
        }
        print(json.dumps(report), flush=True)
        return accuracies[-1]

    sampler = optuna.samplers.TPESampler(seed=options.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in options.trials or ():
        study.enqueue_trial({name: value for name, value in one.items() if name != "seed"})
    count = len(options.trials) if options.trials else options.sample
    study.optimize(objective, n_trials=count, timeout=options.budget)


def _suggest(trial: optuna.Trial, cuts: tuple[int, ...]) -> dict[str, Any]:
    params: dict[str, Any] = {"head_layers": trial.suggest_int("head_layers", 0, 1)}
    if params["head_layers"]:
        params["head_units"] = trial.suggest_int("head_units", 64, 1024, log=True)
    params["dropout"] = trial.suggest_float("dropout", 0.0, 0.5, step=0.1)
    params["optimizer"] = trial.suggest_categorical("optimizer", OPTIMIZERS)
    params["learning_rate"] = trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True)
    params["batch_size"] = trial.suggest_categorical("batch_size", BATCHES)
    if cuts:
        params["cut"] = trial.suggest_categorical("cut", cuts)
        if params["cut"] != cuts[-1]:
            factor = trial.suggest_float("fine_tune_factor", 3e-3, 1.0, log=True)
            params["fine_tune_factor"] = factor
    return params
