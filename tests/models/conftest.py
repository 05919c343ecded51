"""Small real models, made without any framework: logits = flatten(pixels / 255) @ weights."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from automl_tl.export import export_model
from automl_tl.modelfile import ModelFacts
from automl_tl.types import Head
from tests.models.linear import SUFFIXES, LinearBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

COLOURS = {"blue": (0, 0, 255), "green": (0, 160, 0), "red": (255, 0, 0)}
SIZE = 8

WITHOUT_FRAMEWORKS = """
import sys

BLOCKED = {"torch", "torchvision", "keras", "tensorflow", "onnx", "h5py"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts(
        backbone="torch/tiny",
        image_size=SIZE,
        resize="squash",
        classes=tuple(COLOURS),
        head=Head(classes=3),
        fine_tune_at=4,
        study="colours",
        trial=7,
        params={"optimizer": "adamw", "learning_rate": 0.0012345},
        validation={
            "accuracy": 0.95,
            "balanced_accuracy": 0.94,
            "macro_f1": 0.93,
            "log_loss": 0.2,
            "n": 120,
        },
        licences={"weights": "BSD-3-Clause"},
    )


@pytest.fixture
def weights() -> np.ndarray[Any, Any]:
    """Score each class by the sum of its colour's channel: (S * S * 3, classes)."""
    channels = np.eye(3, dtype=np.float32)[[2, 1, 0]].T
    return np.tile(channels, (SIZE * SIZE, 1)) / 10


def linear_onnx(weights: np.ndarray[Any, Any], size: int, batch: int | str = "n") -> Any:
    classes = weights.shape[1]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "top"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [
            numpy_helper.from_array(np.float32(255), "top"),
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def make_onnx() -> Callable[..., Any]:
    return linear_onnx


@pytest.fixture
def write_onnx(
    tmp_path: Path, facts: ModelFacts, weights: np.ndarray[Any, Any]
) -> Callable[..., Path]:
    """``write(name, graph=None, metadata=None, **changed facts)`` returns the file's path."""

    def write(
        name: str = "model.onnx",
        graph: Any = None,
        metadata: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Path:
        model = linear_onnx(weights, SIZE) if graph is None else graph
        changed = replace(facts, **changes)
        helper.set_model_props(model, changed.metadata() if metadata is None else dict(metadata))
        path = tmp_path / name
        onnx.save_model(model, path)
        return path

    return write


def linear_litert(weights: np.ndarray[Any, Any], size: int, batch: int = -1) -> bytes:
    """Make a LiteRT file; ``batch`` is what it declares, -1 for any."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    classes = weights.shape[1]
    matrix = (weights.T / 255).astype(np.float32)

    def tensor(name: str, shape: list[int], kind: int, buffer: int = 0) -> Any:
        found = schema.TensorT()
        found.name, found.type, found.buffer = name, kind, buffer
        found.shape = [max(1, side) for side in shape]
        found.shapeSignature = shape if -1 in shape else None
        return found

    def operator(code: int, inputs: list[int], output: int) -> Any:
        found = schema.OperatorT()
        found.opcodeIndex, found.inputs, found.outputs = code, inputs, [output]
        return found

    def code(builtin: int) -> Any:
        found = schema.OperatorCodeT()
        found.builtinCode = found.deprecatedBuiltinCode = builtin
        return found

    def buffer(data: bytes) -> Any:
        found = schema.BufferT()
        found.data = np.frombuffer(data, np.uint8) if data else None
        return found

    def named(name: str, index: int) -> Any:
        found = schema.TensorMapT()
        found.name, found.tensorIndex = name, index
        return found

    images = [batch, size, size, 3]
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("pixels", images, schema.TensorType.UINT8),
        tensor("float", images, schema.TensorType.FLOAT32),
        tensor("weights", list(matrix.shape), schema.TensorType.FLOAT32, 1),
        tensor("logits", [batch, classes], schema.TensorType.FLOAT32),
    ]
    graph.inputs, graph.outputs = [0], [3]
    dense = operator(1, [1, 2, -1], 3)
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator(0, [0], 1), dense]
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs, signature.outputs = [named("pixels", 0)], [named("logits", 3)]
    model = schema.ModelT()
    model.signatureDefs = [signature]
    model.version = 3
    model.operatorCodes = [
        code(schema.BuiltinOperator.CAST),
        code(schema.BuiltinOperator.FULLY_CONNECTED),
    ]
    model.subgraphs = [graph]
    model.buffers = [buffer(b""), buffer(matrix.tobytes())]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture
def make_litert() -> Callable[..., bytes]:
    return linear_litert


@pytest.fixture
def write_litert(
    tmp_path: Path, facts: ModelFacts, weights: np.ndarray[Any, Any]
) -> Callable[..., Path]:
    """``write(name, data=None, metadata=None, **changed facts)`` returns the file's path."""

    def write(
        name: str = "model.tflite",
        data: bytes | None = None,
        metadata: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Path:
        path = tmp_path / name
        path.write_bytes(linear_litert(weights, SIZE) if data is None else data)
        told = replace(facts, **changes).metadata() if metadata is None else metadata
        with zipfile.ZipFile(path, "a") as archive:
            for key, text in told.items():
                archive.writestr(f"{key}.json", text)
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of classes: three pictures of each colour, in three formats."""
    folder = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i, suffix in enumerate((".png", ".jpg", ".gif")):
            size = (20 + 5 * i, 30)
            Image.new("RGB", size, colour).save(folder / name / f"{i}{suffix}")
    return folder


@pytest.fixture
def run_without_frameworks() -> Callable[..., str]:
    """Run Python code where no framework can be imported; returns what it prints."""

    def run(code: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_FRAMEWORKS + code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(256, size=(300, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def trained(tmp_path, facts, weights):
    noisy = weights + np.random.default_rng(1).normal(size=weights.shape).astype(np.float32)
    path = tmp_path / "study" / "trial.safetensors"
    path.parent.mkdir()
    save_file({"weights": noisy}, path, metadata=facts.metadata())
    return path


@pytest.fixture
def export(trained, make_onnx, make_litert, write_litert, pixels, facts, weights, tmp_path):
    def litert(path, weights, metadata):
        write_litert(path, make_litert(weights, 8), metadata)

    def run(name="out/model.onnx", format="onnx", fault="", recorded=None, **changes):
        backend = LinearBackend(make_onnx, fault, litert)
        labels = backend.load(trained).logits(pixels).argmax(axis=1)
        labels[:10] = (labels[:10] + 1) % 3
        changed = replace(facts, **changes)
        target = tmp_path / name
        images = (pixels, labels)
        return export_model(
            trained, format, target, backend, SUFFIXES, *images, changed, recorded=recorded
        )

    return run
