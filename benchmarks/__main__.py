"""Measures automl-tl beside its rivals; prints tables, saves results.json and results.svg."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine, plot, render
from benchmarks.bench import ROOT, SHARED, SIZES, Bench, missing
from benchmarks.results import BenchError, Track
from benchmarks.tracks import TRACKS

RESULTS = "results.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 1 when a track failed, not when what it needs is absent."""
    options = _parse(arguments)
    if options.render is not None:
        sys.stdout.write(render.markdown(_read(options.render), TRACKS))
        return 0
    output = options.output or ROOT / "benchmarks" / "results" / f"{datetime.now():%Y%m%d-%H%M%S}"
    output.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    work = output / "work"
    bench = Bench(
        work,
        options.size,
        options.pairs,
        budget=options.budget,
        say=lambda text: console.print(f"  {text}", style="dim", markup=False),
    )
    if options.threads:
        bench.threads = options.threads
    results: dict[str, Any] = {
        "machine": machine.facts(),
        "size": options.size,
        "pairs": options.pairs,
        "threads": bench.threads,
        "tracks": {},
    }
    absent = options.size != "tiny" and not SHARED.is_dir()
    if absent:
        console.print(missing(), markup=False)
    failed = False
    for key in options.track or TRACKS:
        if absent and TRACKS[key].photos:
            found = {"title": TRACKS[key].title, "error": missing()}
        else:
            found = _measure(TRACKS[key], bench, console)
            failed |= "error" in found
        results["tracks"][key] = found
        _save(output, results)
    render.show_summary(console, results, TRACKS)
    console.print(f"Saved in {output}.", markup=False)
    if not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    return int(failed)


def _measure(track: Track, bench: Bench, console: Console) -> dict[str, Any]:
    """Return what a track found, or why it found nothing."""
    console.print(f"{track.key}: {track.title}", style="bold", markup=False)
    started = time.monotonic()
    facts: dict[str, Any] = {"title": track.title, "load": machine.load()}
    try:
        found = track.run(bench).to_json()
    except BenchError as error:
        console.print(f"Not measured: {error}", style="red", markup=False)
        return {**facts, "error": str(error)}
    render.show(console, found)
    return {**facts, **found, "seconds": round(time.monotonic() - started, 1)}


def _read(path: str) -> dict[str, Any]:
    """Return saved results; none for an empty path."""
    if not path:
        return {}
    try:
        return dict(json.loads(Path(path).read_text()))
    except (OSError, ValueError) as error:
        sys.exit(f"Error: expected --render to name a results.json, but {path}: {error}.")


def _save(output: Path, results: dict[str, Any]) -> None:
    """Write everything after each track, so that a later one's end costs nothing."""
    (output / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    (output / "results.svg").write_text(plot.svg(results, TRACKS))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--track", action="append", choices=TRACKS, metavar="KEY", help="A1 to A9, S1, S2; repeats"
    )
    parser.add_argument("--size", choices=SIZES, default="full", help="how much to measure")
    parser.add_argument(
        "--quick", action="store_const", const="quick", dest="size", help="the same as --size quick"
    )
    parser.add_argument("--pairs", type=int, default=3, help="interleaved repetitions")
    parser.add_argument("--threads", type=int, help="of the rivals; all CPUs by default")
    parser.add_argument(
        "--budget", type=float, default=1800, help="seconds that B0 may search in A6"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for the results")
    parser.add_argument("--keep", action="store_true", help="keep studies and caches, in work/")
    parser.add_argument(
        "--render",
        nargs="?",
        const="",
        metavar="JSON",
        help="print results as Markdown, or empty tables; measures nothing",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
