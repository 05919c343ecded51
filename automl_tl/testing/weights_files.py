"""Whether a weights file is data alone: read without loading it, so that nothing in it runs."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_ZIP, _NUMPY, _PICKLE = b"PK\x03\x04", b"\x93NUMPY", b"\x80"
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF"
"""How files begin that PyTorch wrote before 1.6: with a number, as a pickle of its own."""
_STORED_IN_A_ROW = 5
"""Pickles at the start of such a file; tensors follow."""
_HARMLESS = re.compile(
    r"collections\.OrderedDict|_codecs\.encode|"
    r"torch\._utils\._rebuild_(tensor(_v2|_v3)?|parameter(_with_state)?|qtensor)|"
    r"torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter|"
    r"torch\.(Size|Tensor|device)|torch\.(storage\.)?\w*Storage|"
    r"torch\.(bool|u?int\d+|q?u?int\d+|b?float\d*|bfloat16|complex\d+|half|double|long|short)"
)
"""What ``torch.load(weights_only=True)`` builds tensors with."""
_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "SHORT_BINSTRING"}
_TEXT |= {"BINSTRING"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}


def code_in(path: Path) -> list[str]:
    """Return what loading a file would call beside what builds tensors; nothing for plain data.

    Files that PyTorch and NumPy write are looked into, and any pickle. safetensors, HDF5 and other
    formats hold data alone.

    Raises:
        OSError: When the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start.startswith(_ZIP):
            return _in_archive(file)
        if start.startswith(_NUMPY):
            return _in_array(file)
        if start.startswith(_PICKLE):
            return _in_pickles(file) or ([] if start == _OLD_TORCH else ["a pickle"])
    return []


def _in_archive(file: IO[bytes]) -> list[str]:
    found: list[str] = []
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if "/code/" in f"/{name}":
                    return ["a TorchScript program"]
                if name.endswith((".pkl", ".pickle")):
                    found += _in_pickles(io.BytesIO(archive.read(name)))
                elif name.endswith(".npy"):
                    with archive.open(name) as member:
                        found += _in_array(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return [f"an archive that cannot be read ({error})"]
    return sorted(set(found))


def _in_array(file: IO[bytes]) -> list[str]:
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            return []
        _, _, dtype = read(file)
    except ValueError as error:
        return [f"an array that cannot be read ({error})"]
    return ["pickled objects in an array"] if dtype.hasobject else []


def _in_pickles(file: IO[bytes]) -> list[str]:
    found: set[str] = set()
    for _ in range(_STORED_IN_A_ROW):
        start = file.read(1)
        if start != _PICKLE:
            break
        file.seek(-1, io.SEEK_CUR)
        try:
            found |= _names(file)
        except ValueError:  # what follows the last pickle only looked like one
            break
    return sorted(name for name in found if not _HARMLESS.fullmatch(name))


def _names(file: IO[bytes]) -> set[str]:
    """Return every function and class that one pickle names."""
    names: set[str] = set()
    texts: list[str] = []
    memo: dict[Any, str] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in {"GLOBAL", "INST"}:
            names.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.add(".".join(texts[-2:]))
        elif opcode.name in _TEXT:
            texts.append(str(argument))
        elif opcode.name in _GET:
            texts += [memo[argument]] if argument in memo else []
        elif opcode.name == "MEMOIZE" or opcode.name in _PUT:
            index = len(memo) if opcode.name == "MEMOIZE" else argument
            memo[index] = texts[-1] if texts else ""
    return names
