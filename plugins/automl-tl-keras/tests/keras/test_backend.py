from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from keras import layers

from automl_tl.errors import UsageError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec, Source
from automl_tl_keras.backend import KerasBackend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def load(path: Path | None) -> Any:
    images = keras.Input((None, None, 3))
    value = layers.BatchNormalization()(layers.Conv2D(4, 3)(images))
    return keras.Model(images, layers.ReLU()(value))


def backbone(key: str) -> Backbone:
    name = key.partition("/")[2]
    return Backbone(name, "keras", load, input_size=8, parameters=1, min_size=4)


def spec(name: str = "one", size: int = 8) -> NetworkSpec:
    return NetworkSpec(f"keras/{name}", size, None, "random:0")


class Silent:
    def step(self, what: str, done: int, total: int) -> None:
        pass


def backend() -> KerasBackend:
    return KerasBackend(backbone)


def test_the_last_network_is_kept_and_only_that(tmp_path: Path) -> None:
    keeper = backend()
    keeper.describe(spec())
    first = weakref.ref(keeper._network)
    weight = weakref.ref(next(iter(keeper._network.tensors().values())))
    keeper.describe(spec())
    assert keeper._network is first()
    np.save(tmp_path / "in.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "out.npy", np.zeros((3, 4), np.float32))
    keeper.run(spec(), Source(tmp_path / "in.npy", 0), 4, "avg", tmp_path / "out.npy", Silent())
    keeper.describe(spec("two"))
    gc.collect()
    assert first() is None and weight() is None


def test_describes_at_the_size_that_is_asked_for() -> None:
    keeper = backend()
    assert keeper.describe(spec(size=8)).cuts[-1].shape == (6, 6, 4)
    info = keeper.describe(spec(size=20))
    assert info.cuts[-1].shape == (18, 18, 4) and info.features == 4
    assert info.version.startswith(f"keras {keras.__version__} tensorflow ")
    with pytest.raises(UsageError, match="at least 4 pixels"):
        keeper.describe(spec(size=3))


def test_a_device_that_is_not_there() -> None:
    keeper = backend()
    assert keeper.devices()[-1] == "cpu"
    with pytest.raises(UsageError, match="--device cuda:7: expected auto or one of the devices"):
        keeper.configure("cuda:7", 1)
    assert keeper.configure("cpu", 1) == "cpu" and keeper.configure("cpu", 2) == "cpu"


def python(program: str, environment: Mapping[str, str]) -> str:
    """Run a program in a process of its own; a value that is empty unsets a variable."""
    merged = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={name: value for name, value in merged.items() if value},
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr.strip().rpartition("\n")[2]).strip()


CHOOSE = """
import os, sys
from automl_tl_keras import runtime
from automl_tl_keras.backend import KerasBackend
KerasBackend()
print(os.environ["KERAS_BACKEND"], "keras" in sys.modules, "tensorflow" in sys.modules)
"""


def test_importing_the_backend_imports_no_framework() -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    assert python(CHOOSE, {"KERAS_BACKEND": "", **hidden}) == "tensorflow False False"
    assert python(CHOOSE, {"KERAS_BACKEND": "torch", **hidden}) == "torch False False"
    assert "KERAS_BACKEND=numpy: expected one of" in python(CHOOSE, {"KERAS_BACKEND": "numpy"})


@pytest.mark.parametrize(
    ("sees", "chosen"),
    [({"torch"}, "torch"), ({"tensorflow", "torch"}, "tensorflow"), (set(), "tensorflow")],
)
def test_a_gpu_decides_between_frameworks(sees: set[str], chosen: str) -> None:
    program = f"""
from automl_tl_keras import runtime
runtime._sees_gpu = {sees!r}.__contains__
print(runtime.choose_backend())
"""
    gpu = {"CUDA_VISIBLE_DEVICES": "0", "KERAS_BACKEND": ""}
    assert python(program, gpu) == chosen


def test_without_tensorflow_it_is_torch_and_without_both_a_sentence() -> None:
    program = """
import importlib.util
from automl_tl_keras import runtime
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in HIDDEN else find(name)
print(runtime.choose_backend())
"""
    alone = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": ""}
    assert python(program.replace("HIDDEN", "{'tensorflow'}"), alone) == "torch"
    both = program.replace("HIDDEN", "{'tensorflow', 'torch', 'jax'}")
    assert "none of them is installed" in python(both, alone)
