"""Trained models as files: written as safetensors, opened again as data.

A model file is never run as the program that it is, unless this process wrote it: the network is
rebuilt from the facts in the file and filled with the file's tensors.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from automl_tl import modelfile
from automl_tl.errors import ExportError
from automl_tl.identify import identify
from automl_tl_keras import head as heads
from automl_tl_keras import runtime, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.identify import ModelFile
    from automl_tl.specs import Backbone
    from automl_tl.types import Head
    from automl_tl_keras.network import Network
    from automl_tl_keras.whole import Whole

    Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class KerasModel:
    """A trained model in memory; implements ``automl_tl.protocols.Model``.

    Args:
        classify: Maps uint8 ``(n, S, S, 3)``, n at least 1, to float32 ``(n, classes)``.
        image_size: Side of the square input in pixels.
        classes: Width of the logits.
        written: Digests of the files that this process exported; ``export`` adds to it.
        device: Where it runs.
        source: The model to export; None for one that is exported already.
    """

    def __init__(
        self,
        classify: Classify,
        image_size: int,
        classes: int,
        written: set[str],
        device: str = "cpu",
        source: Whole | None = None,
    ) -> None:
        self._classify = classify
        self._size = image_size
        self._classes = classes
        self._written = written
        self._device = device
        self._source = source

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)`` in float32; returns ``(N, classes)``.

        Raises:
            ExportError: For pixels of another shape or type.
        """
        side = self._size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ExportError(
                f"expected uint8 pixels of shape (N, {side}, {side}, 3), got {pixels.dtype} "
                f"{pixels.shape}; resize the images first."
            )
        parts = [np.empty((0, self._classes), np.float32)]
        with runtime.exact_float32(self._device):
            for start in range(0, len(pixels), batch_size):
                batch = np.ascontiguousarray(pixels[start : start + batch_size])
                parts.append(np.asarray(self._classify(batch), np.float32))
        return np.concatenate(parts)

    def calibrate(self, temperature: float) -> None:
        """Divide all logits by a temperature, in the last layer's weights; see ``Model``.

        Raises:
            ExportError: For a model that is exported already.
        """
        self._trained().divide_logits(temperature)

    def export(self, format: str, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model as one of ``plugin.FORMATS``, to exactly ``path``.

        Raises:
            ExportError: For another format, or when the model cannot be expressed in it.
        """
        trained = self._trained()
        if format == "safetensors":
            arrays = {name: _array(variable) for name, variable in trained.tensors.items()}
            save_model(path, arrays, metadata)
            return
        from automl_tl_keras import export

        if format not in export.WRITERS:
            known = ", ".join((*export.WRITERS, "safetensors"))
            raise ExportError(f"format: expected one of {known}, got {format!r}.")
        with modelfile.written(path) as aside:
            export.write(trained, format, aside, metadata)
        self._written.add(digest(path))

    def _trained(self) -> Whole:
        if self._source is None:
            raise ExportError(
                "expected a trained model, got one that is exported already; export it again from "
                "its study with `automl-tl export`."
            )
        return self._source


def save_model(
    path: Path, tensors: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]
) -> None:
    """Write tensors as safetensors, aside and renamed.

    Args:
        path: Replaced when it exists.
        tensors: Named as in ``Whole.tensors``.
        metadata: Stored as it is.

    Raises:
        ExportError: When the file cannot be written.
    """
    plain = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with modelfile.written(path) as aside:
        save_file(plain, aside, dict(metadata))


def assemble(
    network: Network,
    head: Head,
    weights: Sequence[NDArray[np.float32]],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write a network with a trained head; see ``automl_tl.protocols.Backend.assemble``."""
    names = heads.sizes(head, network.info.cuts[-1].shape)
    tensors = {f"head.{name}": array for name, array in zip(names, weights, strict=True)}
    for name, variable in network.tensors().items():
        tensors[f"backbone.{name}"] = np.asarray(ops.convert_to_numpy(variable))
    save_model(path, tensors, metadata)


def load_model(
    path: Path,
    backbones: Callable[[str], Backbone],
    device: str = "cpu",
    written: set[str] | None = None,
) -> KerasModel:
    """Open a model file or a SavedModel, whatever its suffix.

    Args:
        path: The file or folder.
        backbones: Returns the backbone of a key; raises an ``AutoMLError`` for an unknown one.
        device: Where Keras runs.
        written: Digests of the files that this process exported, which are run as they are.

    Raises:
        ExportError: When it is not a model of automl-tl, or damaged.
    """
    written = set() if written is None else written
    file = identify(path)
    size, classes = file.facts.image_size, len(file.facts.classes)
    if file.kind == "litert" or (
        file.kind in ("archive", "savedmodel") and digest(path) in written
    ):
        from automl_tl_keras import reopen

        return KerasModel(reopen.open_written(file), size, classes, written, device)
    built = whole.build(file.facts, backbones, path.name, file.size)
    _fill(built, file)
    return KerasModel(whole.compiled(built.program), size, classes, written, device, built)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all that is in a folder, in hexadecimal."""
    total = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                inner = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{file.relative_to(path).as_posix()}\n{inner}\n".encode())
    return total.hexdigest()


def _fill(built: Whole, file: ModelFile) -> None:
    from automl_tl_keras import reopen

    name = file.path.name
    if file.kind == "safetensors":
        try:
            with safe_open(file.path, "numpy") as tensors:
                built.fill({key: tensors.get_tensor(key) for key in tensors.keys()}, name)
        except (OSError, SafetensorError) as error:
            raise ExportError(
                f"{name}: the file is damaged ({error}); export the model again."
            ) from error
    elif file.kind == "archive":
        reopen.fill_from_archive(built, file.path)
    elif file.kind == "savedmodel":
        reopen.fill_from_savedmodel(built, file.path)
    else:
        raise ExportError(f"{name}: expected a model that Keras runs, got {file.kind}.")


def _array(variable: Any) -> NDArray[np.generic]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable))
