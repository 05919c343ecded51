"""What Keras runs on: the framework below it and the device. Importing this imports neither."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from automl_tl.devices import visible_gpus
from automl_tl.errors import UsageError
from automl_tl_keras.frameworks import candidates

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNT_GPUS = {
    "tensorflow": "import tensorflow as t; print(len(t.config.list_physical_devices('GPU')))",
    "torch": "import torch; print(torch.cuda.device_count())",
    "jax": "import jax; print(sum(d.platform == 'gpu' for d in jax.devices()))",
}
"""Programs that print how many GPUs each framework sees."""


def choose_backend() -> str:
    """Choose the framework below Keras and set ``KERAS_BACKEND``, before Keras is imported.

    What the user has set wins. Otherwise it is the first that is installed of TensorFlow, PyTorch
    and JAX; and where there is an NVIDIA GPU, the first of them that sees it. They are asked in
    processes of their own, because TensorFlow and PyTorch cannot share one.

    Raises:
        UsageError: When there is nothing that Keras can run on.
    """
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    chosen = os.environ.get("KERAS_BACKEND") or _best()
    if chosen not in _COUNT_GPUS:
        raise UsageError(
            f"KERAS_BACKEND={chosen}: expected one of {', '.join(_COUNT_GPUS)}; unset it or choose "
            "one of them."
        )
    os.environ["KERAS_BACKEND"] = chosen
    # JAX would take most of a GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return chosen


def devices() -> list[str]:
    """Devices that Keras can use here, best first: ``cuda:0`` and up, ``mps``, ``cpu``."""
    framework = choose_backend()
    if framework == "torch":
        import torch

        mps = torch.backends.mps.is_available()
        return [*_cuda(torch.cuda.device_count()), *(["mps"] if mps else []), "cpu"]
    if framework == "jax":
        import jax

        return [*_cuda(sum(device.platform == "gpu" for device in jax.devices())), "cpu"]
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    if sys.platform == "darwin":
        return ["mps", "cpu"] if count else ["cpu"]
    return [*_cuda(count), "cpu"]


def choose(name: str, threads: int) -> str:
    """Choose the device and the CPU threads, once, before Keras computes anything.

    ``auto`` is the best device, ``cuda`` the first CUDA device. TensorFlow and Keras on PyTorch
    keep to the device that they started on, and TensorFlow to its threads; JAX takes its threads
    from the cores that the process may use. On TensorFlow other GPUs are hidden, and a GPU's
    memory is taken only as it is needed.

    Args:
        name: ``auto`` or a device.
        threads: 0 leaves them as they are.

    Returns:
        The device.

    Raises:
        UsageError: When this machine has no such device, or Keras runs on another one already.
    """
    found = devices()
    device = {"auto": found[0], "cuda": "cuda:0"}.get(name, name)
    if device not in found:
        raise UsageError(
            f"--device {name}: expected auto or one of the devices of this machine "
            f"({', '.join(found)})."
        )
    framework = choose_backend()
    start = {"tensorflow": _start_tensorflow, "torch": _start_torch, "jax": _start_jax}[framework]
    if not start(device, threads):
        raise UsageError(
            f"--device {name}: expected the device that Keras runs on already in this process, got "
            f"{device}; start a new process for another one."
        )
    return device


def free_memory(device: str) -> int:
    """Return the bytes that a batch may take there."""
    return 512 * 2**20 if device == "cpu" else 4 * 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether a framework gave up because a device's memory is full."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ResourceExhaustedError", "OutOfMemoryError"}) or (
        "XlaRuntimeError" in names and "RESOURCE_EXHAUSTED" in str(error)
    )


@contextlib.contextmanager
def exact_float32(device: str) -> Iterator[None]:
    """Compute in full float32: no TF32 in convolutions and matrix products on GPUs.

    Stored activations feed every later trial, and TF32 keeps 10 bits of the mantissa only.
    """
    if device == "cpu":
        yield
        return
    framework = choose_backend()
    if framework == "torch":
        import torch

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        finally:
            torch.set_float32_matmul_precision(before)
    elif framework == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        from tensorflow.config import experimental as settings

        before = settings.tensor_float_32_execution_enabled()
        settings.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            settings.enable_tensor_float_32_execution(before)


@contextlib.contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed PyTorch's generators where Keras runs on it, and put them back afterwards.

    There ``keras.layers.Dropout`` draws from them; on other frameworks layers have their own.
    """
    if choose_backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def _best() -> str:
    installed = candidates()
    if not installed:
        raise UsageError(
            "Keras needs TensorFlow, PyTorch or JAX, and none of them is installed: "
            "pip install tensorflow."
        )
    if len(installed) == 1 or not visible_gpus():
        return installed[0]
    return next((name for name in installed if _sees_gpu(name)), installed[0])


def _sees_gpu(framework: str) -> bool:
    command = [sys.executable, "-c", _COUNT_GPUS[framework]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() not in {"", "0"}


def _cuda(count: int) -> list[str]:
    return [f"cuda:{index}" for index in range(count)]


def _start_tensorflow(device: str, threads: int) -> bool:
    """Apply a choice; says whether it holds. Once TensorFlow runs, its settings are fixed."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    index = int(device.partition(":")[2] or 0)
    wanted = [] if device == "cpu" else [gpus[index]]
    if threads:
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices(wanted, "GPU")
        for gpu in wanted:
            tf.config.experimental.set_memory_growth(gpu, True)
    return bool(tf.config.get_visible_devices("GPU") == wanted)


def _start_torch(device: str, threads: int) -> bool:
    """Apply a choice; says whether it holds. Keras reads the device when it is imported."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if "keras" not in sys.modules:
        os.environ["KERAS_TORCH_DEVICE"] = device
    return os.environ.get("KERAS_TORCH_DEVICE", devices()[0]) == device


def _start_jax(device: str, threads: int) -> bool:
    """Apply a choice; it always holds."""
    import jax

    kind, _, index = device.partition(":")
    platform = {"cuda": "gpu"}.get(kind, kind)
    jax.config.update("jax_default_device", jax.devices(platform)[int(index or 0)])
    return True
