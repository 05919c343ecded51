"""What a model file is, told from its content: no suffix is trusted and nothing in it is run."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from automl_tl import onnx_file
from automl_tl.errors import ExportError
from automl_tl.modelfile import KEY, ModelFacts
from automl_tl.training.head import parameters
from automl_tl.types import Head, Pooling

if TYPE_CHECKING:
    from pathlib import Path

MAX_IMAGE_SIZE = 4096
"""Largest side of an input that is believed, in pixels."""
MAX_METADATA = 64 * 2**20
"""Most bytes of metadata that are read."""
MAX_WHOLE = 2**31
"""A protobuf message, such as ONNX, is never larger, and neither is a flatbuffer (LiteRT)."""
GRAPH = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

_CHECKPOINTS = (b"\x89HDF", b"\x80")
"""How HDF5 files (Keras) and pickles (PyTorch) begin."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that automl-tl wrote.

    Attributes:
        path: Where it lies.
        kind: ``archive`` is a zip (PyTorch's ``.pt2``, Keras's ``.keras``), ``savedmodel`` a
            folder.
        facts: What it says of itself, checked.
        size: Bytes of the file, or of all files in the folder.
        data: The whole file for ``onnx`` and ``litert``, else None.
    """

    path: Path
    kind: Literal["onnx", "litert", "safetensors", "archive", "savedmodel"]
    facts: ModelFacts
    size: int
    data: bytes | None = None


def identify(path: Path) -> ModelFile:
    """Read what a model file says of itself.

    Raises:
        ExportError: When there is no such file, it is no model, or automl-tl did not write it.
    """
    name = str(path)
    folder = os.path.isdir(path)
    if folder and not os.path.isfile(path / GRAPH):
        raise ExportError(
            f"{name}: expected a model file, but this is a folder and no SavedModel; name the file."
        )
    if not os.path.exists(path):
        raise ExportError(f"{name}: expected a model file, but there is no such file.")
    if not folder and not os.path.isfile(path):
        raise ExportError(f"{name}: expected a model file, but this is no regular file.")
    try:
        return _folder(path, name) if folder else _file(path, name)
    except OSError as error:
        raise ExportError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise ExportError(
            f"{name}: expected a model that automl-tl exported, but it is damaged or no model "
            f"file at all ({str(error) or type(error).__name__})."
        ) from error


def _folder(path: Path, name: str) -> ModelFile:
    stored = path / "assets.extra" / f"{KEY}.json"
    metadata = {}
    if os.path.isfile(stored):
        with stored.open("rb") as file:
            metadata = {KEY: file.read(MAX_METADATA).decode()}
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return ModelFile(path, "savedmodel", _facts(metadata, name, size), size)


def _file(path: Path, name: str) -> ModelFile:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        if not start:
            raise ValueError("it is empty")
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if start[8:] == b"{" and length <= size - 8:
            if length > MAX_METADATA:
                raise ValueError("its header is too large")
            metadata = json.loads(b"{" + file.read(length - 1)).get("__metadata__")
            if not isinstance(metadata, Mapping) or KEY not in metadata:
                raise _checkpoint(name)
            return ModelFile(path, "safetensors", _facts(metadata, name, size), size)
    if start[:4] == b"PK\x03\x04":
        metadata = _archive_metadata(path)
        if not metadata and _holds_weights(path):
            raise _checkpoint(name)
        return ModelFile(path, "archive", _facts(metadata, name, size), size)
    if start.startswith(_CHECKPOINTS):
        raise _checkpoint(name)
    if size > MAX_WHOLE:
        raise ValueError("it is too large for ONNX and LiteRT")
    data = path.read_bytes()
    if data[4:8] == b"TFL3":
        # Such a file carries its metadata as the zip that is appended to it.
        metadata = _archive_metadata(path) if zipfile.is_zipfile(path) else {}
        return ModelFile(path, "litert", _facts(metadata, name, size), size, data)
    metadata = onnx_file.read_metadata(data)
    return ModelFile(path, "onnx", _facts(metadata, name, size), size, data)


def _holds_weights(path: Path) -> bool:
    """Whether an archive is what ``torch.save`` or Keras writes."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(("data.pkl", ".weights.h5")) for name in archive.namelist())


def _checkpoint(name: str) -> ExportError:
    return ExportError(
        f"{name}: expected a model that automl-tl exported, but this is a checkpoint, with no "
        f"automl-tl metadata; start a search from it with `--weights KEY={name}`, and export what "
        "that finds."
    )


def _archive_metadata(path: Path) -> dict[str, str]:
    """Read the member called ``automl_tl``, in whatever folder of the archive."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.rpartition("/")[2] in (KEY, f"{KEY}.json"):
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("its metadata is packed in an unusual way")
                with archive.open(member) as file:
                    return {KEY: file.read(MAX_METADATA).decode()}
    return {}


def _facts(metadata: object, name: str, size: int) -> ModelFacts:
    """Read and check the facts of a file of so many bytes."""
    try:
        facts = ModelFacts.parse(metadata if isinstance(metadata, Mapping) else {}, name)
    except RecursionError:
        raise ExportError(f"{name}: its automl-tl metadata is damaged (nested).") from None
    checks = _checks(facts) | _head_checks(facts.head, len(facts.classes), size)
    wrong = next((field for field, right in checks.items() if not right), None)
    if wrong:
        raise ExportError(f"{name}: its automl-tl metadata is damaged ({wrong}).")
    return facts


def _checks(facts: ModelFacts) -> dict[str, bool]:
    texts = ("backbone", "study", "resize")
    mappings = ("params", "validation", "test", "versions", "licences", "extra")
    values = {field.name: getattr(facts, field.name) for field in fields(facts)}
    return {
        **{name: isinstance(values[name], str) for name in texts},
        **{name: isinstance(values[name], Mapping) for name in mappings},
        "resize": facts.resize in ("squash", "crop", "pad"),
        "image_size": type(facts.image_size) is int and 0 < facts.image_size <= MAX_IMAGE_SIZE,
        "classes": len(facts.classes) > 1 and len(set(facts.classes)) == len(facts.classes),
        "fine_tune_at": type(facts.fine_tune_at) is int,
        "trial": type(facts.trial) is int,
    }


def _head_checks(head: Head, classes: int, size: int) -> dict[str, bool]:
    return {
        "head.classes": type(head.classes) is int and head.classes == classes,
        # Whoever builds the head allocates it before its tensors are compared with the file's. The
        # width of the features is not known here, nor how many bytes a parameter takes.
        "head.units": min(head.units, default=1) > 0
        and parameters(Head(classes, head.units), 1) <= size,
        "head.dropout": type(head.dropout) in (int, float) and 0 <= head.dropout < 1,
        "head.pooling": head.pooling in get_args(Pooling),
        "head.scale": type(head.scale) is float and 0 < head.scale < math.inf,
    }
