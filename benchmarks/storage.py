"""What a trial costs in Optuna's local storages: ask, seven parameters, ten reports, tell.

Run with ``python benchmarks/storage.py``; prints medians of interleaved rounds, and their ratio.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from automl_tl import storage

TRIALS = 40
ROUNDS = 3


def seconds_a_trial(url: str | None, folder: Path) -> float:
    """Return the seconds that one trial of a fresh study takes."""
    storage.create_optuna(folder, url, "s", "maximize")
    study = storage.open_optuna(folder, url, "s", 0)
    started = time.perf_counter()
    for _ in range(TRIALS):
        trial = study.ask()
        x = sum(trial.suggest_float(f"x{number}", 0, 1) for number in range(7))
        for epoch in range(10):
            trial.report(x * epoch, epoch)
        study.tell(trial, x)
    return (time.perf_counter() - started) / TRIALS


def main() -> None:
    """Measure and print."""
    journal, sqlite = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            journal.append(seconds_a_trial(None, folder))
            sqlite.append(seconds_a_trial(f"sqlite:///{folder / 'optuna.db'}", folder))
    ratios = [b / a for a, b in zip(journal, sqlite, strict=True)]
    print(f"journal  {1e3 * statistics.median(journal):7.1f} ms a trial")
    print(f"sqlite   {1e3 * statistics.median(sqlite):7.1f} ms a trial")
    print(f"ratio    {statistics.median(ratios):7.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
