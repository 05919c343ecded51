"""A linear classifier in NumPy that is exported, rightly or with a fault."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from safetensors import safe_open
from safetensors.numpy import save_file

from automl_tl import litert_model
from automl_tl.errors import TrialError

SUFFIXES = {
    "onnx": ".onnx",
    "litert": ".tflite",
    "savedmodel": ".savedmodel",
    "safetensors": ".safetensors",
}


needs_litert = pytest.mark.skipif(
    not litert_model.available(), reason="ai-edge-litert is not installed"
)


class LinearModel:
    """A linear classifier in NumPy that can be exported, rightly or with a fault."""

    def __init__(self, weights, make_onnx, fault, write_litert=None):
        self._weights, self._make_onnx, self._fault = weights, make_onnx, fault
        self._write_litert = write_litert

    def logits(self, pixels, batch_size=64):
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
        return flat @ self._weights

    def calibrate(self, temperature):
        if self._fault != "not calibrated":
            self._weights = self._weights / np.float32(temperature)

    def export(self, format, path, metadata):
        weights, fault = self._weights.copy(), self._fault
        if fault == "raises":
            raise TrialError("RuntimeError: no such operator")
        if fault == "nothing":
            return
        if fault == "one per cent":
            weights *= 1.01
        if fault == "classes swapped":
            weights = weights[:, [1, 0, 2]]
        if fault == "nan":
            weights[:] = np.nan
        if fault == "second file":
            path.with_suffix(".data").write_bytes(b"weights")
        if fault == "no metadata":
            metadata = {}
        if fault == "other metadata":
            metadata = {k: v.replace("colours", "another study") for k, v in metadata.items()}
        if format == "safetensors":
            save_file({"weights": weights}, path, metadata=dict(metadata))
            return
        if format == "litert":
            self._write_litert(path, weights, metadata)
            return
        if format == "savedmodel":
            write_folder(path, weights, metadata)
            return
        model = self._make_onnx(weights, 8, 1 if fault == "fixed batch" else "n")
        if fault == "hidden fixed batch":
            model = first_only(model)
        helper.set_model_props(model, dict(metadata))
        onnx.save_model(model, path)


def write_folder(path, weights, metadata):
    (path / "assets.extra").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(bytes(1000))
    np.save(path / "weights.npy", weights)
    for key, text in metadata.items():
        (path / "assets.extra" / f"{key}.json").write_text(text, encoding="utf-8")


def first_only(model):
    """Let the model claim any batch size, while it only ever classifies the first image."""
    model.graph.node[2].output[0] = "all"
    model.graph.node.insert(3, helper.make_node("Compress", ["all", "one"], ["flat"], axis=0))
    one = onnx.numpy_helper.from_array(np.array([True]), "one")
    model.graph.initializer.append(one)
    return model


class LinearBackend:
    def __init__(self, make_onnx, fault="", write_litert=None):
        self._make_onnx, self._fault, self._write_litert = make_onnx, fault, write_litert

    def load(self, path):
        if path.is_dir():
            return LinearModel(np.load(path / "weights.npy"), self._make_onnx, self._fault)
        with safe_open(path, "numpy") as file:
            weights = file.get_tensor("weights")
        return LinearModel(weights, self._make_onnx, self._fault, self._write_litert)
