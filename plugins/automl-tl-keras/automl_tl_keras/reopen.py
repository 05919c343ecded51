"""Reading exported files back: as data, or as programs where this process wrote them."""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from automl_tl.errors import ExportError
from automl_tl_keras.whole import compiled, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from automl_tl.identify import ModelFile
    from automl_tl_keras.whole import Whole

_WEIGHTS = "model.weights.h5"
_SLACK = 64 * 2**20
"""Bytes that a weights file may be longer than its tensors."""


def open_written(file: ModelFile) -> Callable[[Any], Any]:
    """Open an exported file as the program that it is.

    Args:
        file: Written by this process; or a LiteRT file from anywhere, which can only compute.

    Returns:
        A function from uint8 ``(n, S, S, 3)`` to float32 ``(n, classes)``.
    """
    if file.kind == "archive":
        model = keras.saving.load_model(file.path, compile=False, safe_mode=True)
        return compiled(model)
    import tensorflow as tf

    if file.kind == "savedmodel":
        loaded = tf.saved_model.load(str(file.path))
        signature = loaded.signatures["serving_default"]
        return lambda pixels: signature(pixels=tf.constant(pixels))["logits"].numpy()
    from automl_tl.litert_model import LitertModel

    name = file.path.name
    litert = LitertModel(file.data or b"", file.facts, name, interpreter=tf.lite.Interpreter)
    return lambda pixels: litert.logits(pixels, len(pixels))


def fill_from_archive(model: Whole, path: Path) -> None:
    """Fill a model with the weights in a ``.keras`` file; nothing else in it is read.

    Raises:
        ExportError: When it is damaged or holds other weights.
    """
    limit = sum(4 * math.prod(variable.shape) for variable in model.program.variables) + _SLACK
    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            stored = archive.getinfo(_WEIGHTS)
            if stored.file_size > limit:
                raise ValueError("its weights are too large")
            extracted = Path(folder, _WEIGHTS)
            with archive.open(stored) as source, extracted.open("wb") as target:
                shutil.copyfileobj(source, target)
            with warnings.catch_warnings():
                # Keras passes over groups that are missing, with a warning.
                warnings.simplefilter("error", UserWarning)
                model.program.load_weights(extracted)
    except Exception as error:  # whatever a stranger's bytes may cause, they are not a model
        raise _damaged(path, error) from error
    settle(model.program)


def fill_from_savedmodel(model: Whole, path: Path) -> None:
    """Fill a model with the weights in a SavedModel; nothing in it is run.

    Raises:
        ExportError: When it is damaged or holds other weights, or without TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise ExportError(
            f"{path.name}: a SavedModel takes Keras on TensorFlow, got Keras on "
            f"{keras.config.backend()}; set KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
        arrays = {}
        for name, variable in model.tensors.items():
            key = f"tensors/{_escape(name)}/.ATTRIBUTES/VARIABLE_VALUE"
            if tuple(shapes.get(key, ())) == tuple(variable.shape):
                arrays[name] = reader.get_tensor(key)
    except Exception as error:  # whatever a stranger's bytes may cause, they are not a model
        raise _damaged(path, error) from error
    model.fill(arrays, path.name)


def _escape(name: str) -> str:
    """Write a name as the keys of TensorFlow's object graphs do."""
    return name.replace(".", "..").replace("/", ".S")


def _damaged(path: Path, error: Exception) -> ExportError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ExportError(
        f"{path.name}: expected a model that automl-tl exported, but it is damaged or of another "
        f"kind ({lines[0]}); export the model again."
    )
