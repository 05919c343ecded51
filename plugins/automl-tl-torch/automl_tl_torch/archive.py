"""Reading ``torch.export`` archives (``.pt2``) without running anything that they carry.

``torch.export.load`` is not for strangers' files: it unpickles payloads that the archive marks as
pickled, falls back from ``weights_only=True`` to full unpickling, and evaluates the archive's
shape expressions and guards as Python. So only tensors and metadata are read here, unless the
archive is one that this process wrote.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from automl_tl.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from torch import Tensor, nn

_CONFIG = "data/weights/model_weights_config.json"
_PICKLED = ("data/weights/model.pt", "serialized_state_dict.pt")
"""Where PyTorch up to 2.8 keeps the tensors."""
_EXTRA = ("extra/", "extra_files/")
_TYPES = {1: torch.uint8, 5: torch.int64, 6: torch.float16, 7: torch.float32, 12: torch.bool}
"""Numbers of ``torch._export.serde.schema.ScalarType``."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read an archive's tensors, by name, and its metadata.

    Raises:
        ExportError: When it is damaged, or holds tensors that only unpickling could restore.
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = _entries(file)
            metadata = {
                name.partition("/")[2]: file.read(info).decode("utf-8")
                for name, info in entries.items()
                if name.startswith(_EXTRA)
            }
            return _tensors(file, entries), metadata
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path.name}: refused for safety, its tensors need code to be run to be read; "
            "use the model's safetensors or ONNX file instead."
        ) from error
    except Exception as error:  # whatever a stranger's bytes may cause, they are not a model
        raise ExportError(
            f"{path.name}: expected an archive that automl-tl exported, but it is damaged or of "
            f"another kind ({type(error).__name__}: {error}); export the model again."
        ) from error


def open_trusted(path: Path, written: Collection[str]) -> nn.Module | None:
    """Open an archive as the program that it holds, on the CPU, if this process wrote it.

    Args:
        path: The archive.
        written: SHA-256 of the archives that this process wrote.

    Returns:
        None for any other archive.
    """
    data = path.read_bytes()
    if digest(data) not in written:
        return None
    program: nn.Module = torch.export.load(io.BytesIO(data)).module()
    return program


def digest(data: bytes) -> str:
    """Return the SHA-256 of an archive, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _entries(file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """List the files by their names below the archive's one folder, which older ones lack."""
    entries = {}
    for info in file.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("compressed entries")
        entries[info.filename] = info
        entries[info.filename.partition("/")[2]] = info
    return entries


def _tensors(file: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> dict[str, Tensor]:
    if _CONFIG in entries:
        config = json.loads(file.read(entries[_CONFIG]))["config"]
        return {name: _tensor(file, entries, meta) for name, meta in config.items()}
    for name in _PICKLED:
        if name in entries:
            data = io.BytesIO(file.read(entries[name]))
            tensors = torch.load(data, map_location="cpu", weights_only=True)
            return {str(key): torch.as_tensor(value) for key, value in tensors.items()}
    raise ValueError("no tensors")


def _tensor(
    file: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], meta: dict[str, Any]
) -> Tensor:
    if meta["use_pickle"]:
        raise pickle.UnpicklingError("a pickled tensor")
    layout = meta["tensor_meta"]
    sizes = [int(size["as_int"]) for size in layout["sizes"]]
    strides = [int(stride["as_int"]) for stride in layout["strides"]]
    offset = int(layout["storage_offset"]["as_int"])
    dtype = _TYPES[layout["dtype"]]
    if not math.prod(sizes):
        return torch.empty(sizes, dtype=dtype)
    data = bytearray(file.read(entries[f"data/weights/{meta['path_name']}"]))
    if math.prod(sizes) > len(data):  # repeated by its strides
        raise ValueError("a tensor that is larger than its values")
    return torch.frombuffer(data, dtype=dtype).as_strided(sizes, strides, offset)
