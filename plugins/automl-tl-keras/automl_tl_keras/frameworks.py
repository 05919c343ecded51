"""Which frameworks Keras may run on here, and what they are installed as. Imports none of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import shutil

DISTRIBUTIONS = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly"),
    "torch": ("torch",),
    "jax": ("jax",),
}
"""In the order of preference, with the names under which pip usually installs each."""


def candidates() -> tuple[str, ...]:
    """Return the frameworks of which ``runtime.choose_backend`` takes one, best first.

    What the user has set, else what is installed: the first of them, or, where there may be a GPU
    that not all of them see, each.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return (chosen,)
    installed = (name for name in DISTRIBUTIONS if importlib.util.find_spec(name))
    return tuple(installed if _may_have_gpu() else itertools.islice(installed, 1))


def distribution(module: str) -> str:
    """Return the name of the distribution that a module comes from, its own where none tells."""
    for name in DISTRIBUTIONS.get(module, (module,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            return name
    # Reads the records of all that is installed, which takes long.
    return importlib.metadata.packages_distributions().get(module, [module])[0]


def version(module: str) -> str:
    """Return the version of the distribution that a module comes from, else ``unknown``."""
    try:
        return importlib.metadata.version(distribution(module))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _may_have_gpu() -> bool:
    """Say so without starting NVIDIA's tool, which takes long."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        from automl_tl.devices import visible_gpus

        return bool(visible_gpus())
    return shutil.which("nvidia-smi") is not None
