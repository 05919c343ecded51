"""Weights files are judged without being loaded."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors.numpy import save_file

from automl_tl.testing.weights_files import code_in


class Harm:
    def __reduce__(self):
        return print, ("code",)


def write(path, kind):
    if kind == "safetensors":
        save_file({"a": np.zeros(3, np.float32)}, path)
    elif kind == "npz":
        np.savez(path.open("wb"), a=np.zeros(3))
    elif kind == "npz with objects":
        np.savez(path.open("wb"), a=np.array([{}], dtype=object))
    elif kind == "npy with objects":
        np.save(path.open("wb"), np.array([{}], dtype=object))
    elif kind == "hdf5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    elif kind == "torch archive":
        archive(path, pickle.dumps(OrderedDict(a=1), protocol=2))
    elif kind == "torch archive with code":
        archive(path, pickle.dumps({"a": Harm()}, protocol=2))
    elif kind == "torchscript":
        archive(path, b"", "net/code/net.py")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": [1.0, 2.0]}))
    elif kind == "pickle of arrays":
        path.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    elif kind == "pickle with code":
        path.write_bytes(pickle.dumps({"a": Harm()}, protocol=4))
    elif kind == "damaged archive":
        path.write_bytes(b"PK\x03\x04" + bytes(50))


def archive(path, data, member="net/data.pkl"):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, data)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "hdf5", "torch archive"])
def test_data_alone_is_fine(tmp_path, kind) -> None:
    write(tmp_path / "weights", kind)
    assert code_in(tmp_path / "weights") == []


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("npz with objects", "pickled objects in an array"),
        ("npy with objects", "pickled objects in an array"),
        ("torch archive with code", "__builtin__.print"),
        ("torchscript", "a TorchScript program"),
        ("pickle", "a pickle"),
        ("pickle of arrays", "numpy"),
        ("pickle with code", "builtins.print"),
        ("damaged archive", "an archive that cannot be read"),
    ],
)
def test_what_would_run_is_named(tmp_path, kind, calls) -> None:
    write(tmp_path / "weights", kind)
    assert any(calls in found for found in code_in(tmp_path / "weights"))


@pytest.mark.parametrize("old", [False, True])
def test_what_pytorch_writes_is_data(tmp_path, old) -> None:
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    state["half"] = torch.zeros(3, dtype=torch.float16)
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    assert code_in(path) == []
    torch.save(torch.nn.Conv2d(3, 4, 3), path, _use_new_zipfile_serialization=not old)
    assert "torch.nn.modules.conv.Conv2d" in code_in(path)
