"""A plugin: the NumPy backend that ``plugin new`` writes, which goes wrong as a file says.

``$FAULTS/NAME`` holds how many times the fault ``NAME`` is still to happen; ``$FAULTS/NAME.now``
appears when it does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from automl_tl.hookspecs import hookimpl
from automl_tl.modelfile import written
from automl_tl.specs import Backbone, BackendSpec, Preprocess


def happens(name: str) -> bool:
    """Whether a fault is due; counts it, and says so to whoever waits for it."""
    path = Path(os.environ["FAULTS"]) / name
    left = int(path.read_text()) if path.exists() else 0
    if left:
        path.write_text(str(left - 1))
        path.with_suffix(".now").touch()
    return left > 0


def sleep_in_native_code() -> None:
    """Hang as a deadlock in a framework's own code does: Python runs no thread meanwhile."""
    ctypes.PyDLL(None).sleep(3600)


def eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(np.ones(1 << 24, np.uint8))


def lose_pixels() -> None:
    """Delete what is decoded, as `cache clear` or another process that needs the room does."""
    shutil.rmtree(Path(os.environ["AUTOML_TL_CACHE"]) / "pixels")


def load_backend() -> Any:
    from fresh_numbers.backend import NumpyBackend
    from fresh_numbers.train import NumpyTrainer

    class Trainer(NumpyTrainer):
        def train(self, epoch: Any) -> Any:
            yield from super().train(epoch)
            if happens("slow epoch"):
                time.sleep(1)
            if happens("pixels lost in an epoch"):
                lose_pixels()
            if happens("segfault"):
                ctypes.string_at(0)
            if happens("hang"):
                sleep_in_native_code()
            if happens("memory"):
                eat_memory()
            if happens("nan"):
                self._weights[-1][:] = np.nan

        def save(self, path: Path, metadata: Any) -> None:
            if happens("half a model"):
                with written(path) as aside:
                    aside.write_bytes(b"half")
                    time.sleep(3600)
            super().save(path, metadata)
            if happens("pixels lost after a trial"):
                lose_pixels()
            if happens("images lost after a trial"):
                shutil.rmtree(Path(os.environ["FAULTS"]) / "photos")

    class Backend(NumpyBackend):
        def run(self, *arguments: Any) -> None:
            if happens("half a fill"):
                array = np.load(arguments[4], mmap_mode="r+")
                array[: len(array) // 2] = 7
                array.flush()
                time.sleep(3600)
            super().run(*arguments)

        def trainer(self, job: Any) -> Trainer:
            return Trainer(job, self._build(job.network))

        def load(self, path: Path) -> Any:
            model = super().load(path)
            if happens("half an export"):
                write = type(model).export

                class Half(type(model)):  # type: ignore[misc]
                    def export(self, format: str, path: Path, metadata: Any) -> None:
                        path.write_bytes(b"half")
                        time.sleep(3600)
                        write(self, format, path, metadata)

                return Half(model.network, model.head, model.scale)
            return model

    return Backend()


def load_perceptron(weights: Path | None) -> Any:
    from fresh_numbers.network import perceptron

    return perceptron(weights, "faulty/perceptron")


@hookimpl
def automl_tl_backends() -> list[BackendSpec]:
    formats = {"onnx": ".onnx", "safetensors": ".safetensors"}
    return [BackendSpec("faulty", load_backend, formats, packages=("numpy",))]


@hookimpl
def automl_tl_backbones() -> list[Backbone]:
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return [
        Backbone(
            *("perceptron", "faulty", load_perceptron),
            input_size=32,
            min_size=8,
            preprocess=preprocess,
            parameters=32_960,
        )
    ]
