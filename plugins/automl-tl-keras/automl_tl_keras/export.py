"""Writing whole models in formats that run without automl-tl."""

from __future__ import annotations

import logging
import os
import sys
import warnings
import zipfile
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import keras

from automl_tl.errors import ExportError
from automl_tl.modelfile import KEY
from automl_tl_keras.export_onnx import write_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from automl_tl_keras.whole import Whole

TENSORFLOW_ONLY = ("savedmodel", "litert")


def write(model: Whole, format: str, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with its metadata inside.

    Args:
        model: What to write.
        format: One of ``WRITERS``.
        path: Where nothing is yet.
        metadata: Strings by name.

    Raises:
        ExportError: When the model cannot be expressed in the format.
    """
    framework = keras.config.backend()
    if format in TENSORFLOW_ONLY and framework != "tensorflow":
        raise ExportError(
            f"format: expected onnx, keras or safetensors from Keras on {framework}, got "
            f"{format!r}, which takes TensorFlow; choose one of these or set "
            "KERAS_BACKEND=tensorflow."
        )
    others = ", ".join(name for name in (*WRITERS, "safetensors") if name != format)
    with _exporting(format, others):
        WRITERS[format](model, path, metadata)


def write_keras(model: Whole, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a ``.keras`` file, ``metadata`` as its member ``automl_tl.json``."""
    model.program.save(path)
    _append(path, metadata)


def write_savedmodel(model: Whole, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a SavedModel, a folder, with ``metadata`` in ``assets.extra/automl_tl.json``.

    Its signature ``serving_default`` maps ``pixels`` to ``logits``, as in ONNX. Its
    checkpoint holds the weights as ``tensors``, by the names of ``Whole.tensors``.
    """
    import tensorflow as tf

    module = _module(model)
    tf.saved_model.save(module, str(path), signatures=module.classify.get_concrete_function())
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / f"{KEY}.json").write_text(metadata[KEY], encoding="utf-8")


def write_litert(model: Whole, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a LiteRT file (``.tflite``) in float32, for any batch size.

    Its signature maps ``pixels`` to ``logits``, as in ONNX. ``metadata`` is a zip
    appended to it, as TensorFlow Lite's metadata format stores associated files
    (https://ai.google.dev/edge/litert/conversion/tensorflow/metadata).
    """
    import tensorflow as tf

    module = _module(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.classify.get_concrete_function()], module
    )
    # Otherwise the weights stay variables, whose values are left out of the file.
    converter.experimental_enable_resource_variables = False
    path.write_bytes(converter.convert())
    _append(path, metadata)


WRITERS: Mapping[str, Callable[[Whole, Path, Mapping[str, str]], None]] = MappingProxyType(
    {
        "onnx": write_onnx,
        "keras": write_keras,
        "savedmodel": write_savedmodel,
        "litert": write_litert,
    }
)
"""What writes each format but safetensors."""


def _module(model: Whole) -> Any:
    """Return a TensorFlow module that maps ``pixels`` to ``logits`` by its ``classify``.

    A checkpoint calls each variable by one name only: those of ``Whole.tensors`` by ``tensors``.
    """
    import tensorflow as tf

    def classify(pixels: Any) -> dict[str, Any]:
        return {"logits": model.program(pixels, training=False)}

    shape = (None, model.image_size, model.image_size, 3)
    module = tf.Module()
    module.tensors = {name: variable.value for name, variable in model.tensors.items()}
    named = {id(variable) for variable in model.tensors.values()}
    module.others = [v.value for v in model.program.variables if id(v) not in named]
    module.classify = tf.function(
        classify, input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")]
    )
    return module


def _append(path: Path, metadata: Mapping[str, str]) -> None:
    """Add the metadata to a zip, or append a zip to any other file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KEY}.json", metadata[KEY])


@contextmanager
def _exporting(format: str, others: str) -> Iterator[None]:
    """Keep the converters' messages away; turn what they raise into one sentence."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"the {format} exporter cannot express this network ({reason}); choose another format "
            f"among {others}."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _silent() -> Iterator[None]:
    """Send standard output and error nowhere, those of C++ code too."""
    sys.stdout.flush()
    sys.stderr.flush()
    with ExitStack() as stack:
        for number in (1, 2):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
