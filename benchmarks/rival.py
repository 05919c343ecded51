"""Runs a rival's script, reads its lines, and says what its whole list would take."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench
    from benchmarks.trials import Trial

SCRIPTS = Path(__file__).parent / "rivals"


@dataclass(frozen=True, slots=True)
class Rival:
    """What a rival's run gave.

    Attributes:
        run: What the whole command cost.
        trials: ``trial``, ``seconds``, ``cpu``, ``accuracy`` and ``epochs`` of each.
        setup: Wall seconds outside of trials: imports, and whatever it prepares.
        setup_cpu: CPU seconds of the same.
    """

    run: measure.Run
    trials: list[dict[str, Any]]
    setup: float
    setup_cpu: float

    @property
    def accuracies(self) -> list[float]:
        """Validation accuracy of each trial."""
        return [float(trial["accuracy"]) for trial in self.trials]

    def whole(self, count: int, cpu: bool = False) -> float:
        """Return the seconds of a run of ``count`` trials, scaled from those that were run.

        The first trial may prepare something for all (Keras's ``cache()``); where more than one
        was run, it counts once and the others' mean for all the rest.
        """
        each = [float(trial["cpu" if cpu else "seconds"]) for trial in self.trials]
        setup = self.setup_cpu if cpu else self.setup
        if len(each) >= count:
            return setup + sum(each)
        if len(each) == 1:
            return setup + count * each[0]
        return setup + each[0] + (count - 1) * statistics.fmean(each[1:])


def run(
    bench: Bench,
    script: str,
    listed: Sequence[Trial],
    epochs: int,
    *options: str,
    seeds: Sequence[int] = (0,),
) -> Rival:
    """Run a script on a list of trials, or on what ``options`` say.

    Args:
        bench: The circumstances.
        script: Name of a file in ``rivals/``, without its suffix.
        listed: The trials; none lets the script propose its own.
        epochs: Of each trial.
        options: Further arguments of the script.
        seeds: The list runs once through for each.
    """
    folder = bench.fresh("rival")
    what = ("--epochs", str(epochs))
    if listed:
        path = trials.write(folder / "trials.json", listed, epochs, seeds)
        what = ("--list", str(path))
    command = [
        *(sys.executable, str(SCRIPTS / f"{script}.py"), str(bench.split), *what),
        *("--size", str(bench.image_size), "--threads", str(bench.threads)),
        *("--weights", bench.weights, *options),
    ]
    done = measure.run(command, folder, bench.environment(folder / "cache"))
    lines = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    found = [line for line in lines if line["trial"] is not None]
    return Rival(
        done,
        found,
        done.seconds - sum(trial["seconds"] for trial in found),
        max(0.0, done.cpu - sum(trial["cpu"] for trial in found)),
    )
