"""Images a second of our trainer's steps beside bare loops, in turns, in one process.

Prints a line of JSON for every arrangement. Our trainer gets a job as a trial does: rows of stored
arrays in shuffled order, its own labels, dropout, an optimizer. An epoch counts from the moment it
asks for its source to the moment its loss is known; the first two only warm up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from automl_tl.types import Head, NetworkSpec, PhaseSpec, Source, TrainJob, View
from automl_tl_torch.backend import TorchBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.types import EpochReport, NetworkInfo

WARM = 2
FIRST = {"mobilenet_v2": "features.10.", "resnet50": "layer3."}
"""Where the names of the layers in the upper half begin, as ``rivals/bare_loop.py`` divides."""

Arrangement = tuple[str, int, int, str]


def arrangements(size: str) -> Iterator[Arrangement]:
    """Yield network, side, batch size and what is trained from what."""
    if size == "tiny":
        yield from product(["mobilenet_v2"], [32], [4], ["augmented", "stored"])
        return
    batches = (32, 64, 128) if size == "full" else (32,)
    yield from product(["mobilenet_v2"], [160], batches, ["all", "augmented", "pixels", "stored"])
    yield from product(["mobilenet_v2"], [224], batches[:1], ["augmented", "stored"])
    yield from product(["resnet50"], [160], batches[::2], ["augmented", "stored"])
    yield from product(["resnet50"], [224], batches[:1], ["augmented", "stored"])


class Clock:
    """A ``Progress`` that times epochs, and lets others have their turn between two of them."""

    def __init__(self, images: int, turn: Callable[[], None]) -> None:
        self.images = images
        self.turn = turn
        self.seconds: list[float] = []
        self._began = 0.0

    def need(self, source: Source) -> None:
        """Note when an epoch begins."""
        if source.rows is not None and len(source.rows) == self.images:
            self._began = time.perf_counter()

    def step(self, what: str, done: int, total: int) -> None:
        """Note when its last step's loss is known."""
        if done == self.images:
            self.seconds.append(time.perf_counter() - self._began)

    def epoch(self, report: EpochReport) -> None:
        """Let the others run."""
        self.turn()


def measured(arrangement: Arrangement, images: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure one arrangement."""
    bare = import_module("bare_loop").BareLoop  # a script beside others, as its users have it
    name, side, batch_size, where = arrangement
    backend = TorchBackend()
    device = torch.device(backend.configure("auto", 0))
    loops = {
        kind: bare(*(name, side, batch_size, {"augmented": "all"}.get(where, where)), device, graph)
        for kind, graph in (("bare", False), ("bare_graph", True))
        if not graph or device.type == "cuda"
    }
    took: dict[str, list[float]] = {kind: [] for kind in loops}
    clock = Clock(images, lambda: _turns(loops, took, images // batch_size))
    job = _job(backend, arrangement, images, rounds, folder)
    facts = backend.trainer(job).run(clock)
    rates = {"ours": clock.seconds, **took}
    return {
        "network": name,
        "side": side,
        "batch_size": batch_size,
        "where": where,
        "precision": facts.precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        **{kind: [images / one for one in spent[WARM:]] for kind, spent in rates.items()},
    }


def _turns(loops: dict[str, Any], took: dict[str, list[float]], steps: int) -> None:
    for kind, loop in loops.items():
        few = max(1, steps // 4) if kind == "bare" else steps  # it is the slow one
        took[kind].append(loop.seconds(few) * steps / few)


def _job(
    backend: TorchBackend, arrangement: Arrangement, images: int, rounds: int, folder: Path
) -> TrainJob:
    name, side, batch_size, where = arrangement
    spec = NetworkSpec(f"torch/{name}", side, None, "random:0")
    info = backend.describe(spec)
    at = 0
    if where in {"pixels", "stored"}:
        at = next(k for k, layer in enumerate(info.layers) if layer.name.startswith(FIRST[name]))
    cut = at if where == "stored" else 0
    path = _stored(info, cut, images + 32, folder)
    rows = np.random.default_rng(0).permutation(images + 32)
    views: list[View | None] = [None]
    if where == "augmented":
        views = [View(0.5, 0, index) for index in range(4)]
    train = tuple(Source(path, cut, rows=rows[:images], view=view) for view in views)
    validation = Source(path, cut, rows=rows[images:])
    return TrainJob(
        network=spec,
        info=info,
        head=Head(5, dropout=0.2),
        fine_tune_at=at,
        warmup=PhaseSpec(0, 1e-6),
        fine_tuning=PhaseSpec(WARM + rounds, 1e-6),
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        batch_size=batch_size,
        label_smoothing=0.0,
        class_weights=None,
        seed=0,
        train_labels=np.arange(images) % 5,
        head_train=train[0],
        head_validation=validation,
        tune_train=train,
        tune_validation=validation,
    )


def _stored(info: NetworkInfo, cut: int, count: int, folder: Path) -> Path:
    """Write random pixels, or random tensors of a cut's shape."""
    shape = next(one.shape for one in info.cuts if one.index == cut)
    path = folder / "array.npy"
    random = np.random.default_rng(0)
    kind: Any = np.float32 if cut else np.uint8
    array = np.lib.format.open_memmap(path, "w+", kind, (count, *shape))
    for row in range(0, count, 64):
        part = array[row : row + 64]
        part[:] = (
            random.random(part.shape, np.float32)
            if cut
            else random.integers(0, 256, part.shape, np.uint8)
        )
    array.flush()
    return path


def main() -> None:
    """Measure all arrangements of a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="full", choices=("full", "quick", "tiny"))
    parser.add_argument("--images", type=int, default=1280, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent / "rivals"))
    with tempfile.TemporaryDirectory() as folder:
        for one in arrangements(options.size):
            found = measured(one, options.images, options.rounds, Path(folder))
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
