"""Coverage-guided fuzzing: ``python -m tests.fuzz READER --seconds 60``.

An input at fault is kept in ``fuzz-faults/``; ``python -m tests.fuzz READER --again FILE`` reads
it once more.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

READERS = (
    *("archive", "table", "image", "configuration", "words", "model", "head", "published"),
    *("names", "cache-meta", "cache-array", "study.toml", "data.json", "split.csv"),
    *("journal.log", "result.json", "bounds.json", "history.json", "validation_logits.npy"),
    *("torch-weights", "torch-archive"),
)
LONGEST_SECONDS = 10
"""An input that takes longer hangs its reader."""
MEGABYTES = 3000
"""A reader that takes more memory than this eats it up."""


def main() -> int:
    """Fuzz the readers that are named, or all; returns 1 when any is at fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("reader", nargs="*", choices=[[], *READERS])
    parser.add_argument("--seconds", type=int, default=60, help="how long, a reader")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--faults", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--again", type=Path, help="read this file only")
    options = parser.parse_args()
    readers = options.reader or READERS
    return int(any([_fuzz(name, options) for name in readers]))


def _fuzz(name: str, options: argparse.Namespace) -> bool:
    faults = options.faults / name
    faults.mkdir(parents=True, exist_ok=True)
    said = [
        *(f"-timeout={LONGEST_SECONDS}", f"-rss_limit_mb={MEGABYTES}"),
        *(f"-artifact_prefix={faults.resolve()}/", "-print_final_stats=1"),
        f"-seed={options.seed}",
        str(options.again or f"-max_total_time={max(1, options.seconds)}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, folder, *said],
            env={**os.environ, "AUTOML_TL_CACHE": f"{folder}/cache"},
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    inputs = re.findall(r"number_of_executed_units: (\d+)", run.stdout)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", run.stdout)
    edges, features = reached[-1] if reached else ("?", "?")
    print(f"{name}: {inputs[-1] if inputs else '?'} inputs, {edges} edges, {features} features")
    if run.returncode:
        print(run.stdout[-4000:])
    with suppress(OSError):  # when there are none
        faults.rmdir()
    return run.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
