"""How long the best model takes for an image, measured here and now."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import AutoMLError
from automl_tl.host import BackendHost
from automl_tl.kept import model_file
from automl_tl.machine import available_cpus

if TYPE_CHECKING:
    from automl_tl.study import StudyDirectory

WARM_UP = 3
RUNS = 30
SECONDS = 3.0


def measure(
    directory: StudyDirectory, number: int, backend: str, image_size: int
) -> dict[str, Any]:
    """Time a stored model on this machine's CPU, one image a call.

    The clock runs around the call into the framework's process, handing over the pixels included.

    Args:
        directory: The study directory.
        number: Of the trial whose model it is.
        backend: Name of the backend that wrote it.
        image_size: Side of its input in pixels.

    Returns:
        ``ms``, the median, with ``low`` and ``high`` (quartiles), ``runs``, ``threads`` and
        ``problem`` (None); or only ``problem``, a sentence, when it cannot be run.
    """
    import psutil

    model = directory.model(number)
    if not model.is_file():
        why = "the model's file is gone."
        if model_file(directory, number):
            why = (
                "the whole model is not written yet: the search's end or `automl-tl export` "
                "writes it."
            )
        return {"problem": f"The latency is not known, because {why}"}
    threads = min(psutil.cpu_count(logical=False) or 1, available_cpus())
    pixels = np.random.default_rng(0).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    try:
        with BackendHost(backend, device="cpu", threads=threads) as host:
            opened = host.load(model)
            for _ in range(WARM_UP):
                opened.logits(pixels)
            times: list[float] = []
            end = time.monotonic() + SECONDS
            while len(times) < RUNS and (len(times) < 5 or time.monotonic() < end):
                started = time.perf_counter()
                opened.logits(pixels)
                times.append(1000 * (time.perf_counter() - started))
    except AutoMLError as error:
        return {"problem": f"The latency could not be measured: {error}"}
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "ms": round(middle, 2),
        "low": round(low, 2),
        "high": round(high, 2),
        "runs": len(times),
        "threads": threads,
        "problem": None,
    }
