"""Model files of the NumPy backend, and their export to ONNX."""

from __future__ import annotations

import numpy as np
from numpynet_network import KINDS, PATCH, forward, normalized
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from automl_tl.errors import ExportError
from automl_tl.modelfile import ModelFacts
from automl_tl.plugins import get_plugins


def save(path, tensors, head, metadata):
    named = {f"backbone.{name}": value for name, value in tensors.items()}
    named |= {f"head.{index}": np.asarray(array, np.float32) for index, array in enumerate(head)}
    save_file(named, path, dict(metadata))


def pool(x, head):
    if x.ndim == 4:
        if head.pooling == "flatten":
            x = x.reshape(len(x), -1)
        else:
            x = x.mean(axis=(1, 2)) if head.pooling == "avg" else x.max(axis=(1, 2))
    return x * np.float32(head.scale)


def head_logits(x, head, weights):
    y = pool(x, head)
    for layer in range(0, len(weights), 2):
        y = (np.maximum(y, 0) if layer else y) @ weights[layer] + weights[layer + 1]
    return y


class NumpyModel:
    def __init__(self, facts, tensors, head):
        self.facts, self.tensors, self.head = facts, tensors, head
        self.preprocess = get_plugins().backbone(facts.backbone).preprocess

    @classmethod
    def open(cls, path, backend):
        try:
            with safe_open(path, "numpy") as file:
                stored = {name: file.get_tensor(name) for name in file.keys()}
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise ExportError(f"{path.name} is no model ({error}).") from error
        tensors = {k.removeprefix("backbone."): v for k, v in stored.items() if "backbone." in k}
        count = sum(name.startswith("head.") for name in stored)
        head = [stored[f"head.{index}"] for index in range(count)]
        return cls(ModelFacts.parse(metadata, path.name), tensors, head)

    def logits(self, pixels, batch_size=64):
        x = normalized(pixels, self.preprocess)
        return head_logits(
            forward(self.tensors, x, 0, len(KINDS))[len(KINDS)], self.facts.head, self.head
        )

    def calibrate(self, temperature):
        self.head[-2:] = [array / np.float32(temperature) for array in self.head[-2:]]

    def export(self, format, path, metadata):
        if format == "safetensors":
            save(path, self.tensors, self.head, metadata)
        else:
            self._onnx(path, metadata)

    def _onnx(self, path, metadata):
        import onnx
        from onnx import helper, numpy_helper

        size, nodes, constants = self.facts.image_size, [], {}

        def add(operator, *inputs, **attributes):
            names = []
            for value in inputs:
                constant = isinstance(value, np.ndarray)
                names.append(f"c{len(constants)}" if constant else value)
                if constant:
                    constants[names[-1]] = value
            nodes.append(helper.make_node(operator, names, [f"v{len(nodes)}"], **attributes))
            return nodes[-1].output[0]

        mean, std = (np.array(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        x = add("Cast", "pixels", to=onnx.TensorProto.FLOAT)
        x = add(
            "Div", add("Sub", add("Div", x, np.float32(255) * np.ones(1, np.float32)), mean), std
        )
        side = size // PATCH
        x = add("Reshape", x, np.array([-1, side, PATCH, side, PATCH, 3]))
        x = add("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = add("Reshape", x, np.array([-1, side, side, 3 * PATCH**2]))
        tensors, bridge = self.tensors, None
        for name, kind in list(KINDS.items())[1:]:
            if kind == "Dense":
                x = add("Add", add("MatMul", x, tensors[f"{name}.kernel"]), tensors[f"{name}.bias"])
            elif kind == "BatchNorm":
                factor = tensors["norm.scale"] / np.sqrt(
                    tensors["norm.variance"] + np.float32(1e-3)
                )
                x = add("Mul", add("Sub", x, tensors["norm.mean"]), factor)
                x = add("Add", x, tensors["norm.shift"])
            elif kind == "ReLU":
                x = add("Relu", x)
                bridge = bridge or x
            else:
                x = add("Add", x, bridge)
        x = add("ReduceMean", x, axes=[1, 2], keepdims=0)
        x = add("Mul", x, np.full(1, self.facts.head.scale, np.float32))
        for layer in range(0, len(self.head), 2):
            x = add("Relu", x) if layer else x
            x = add("Add", add("MatMul", x, self.head[layer]), self.head[layer + 1])
        nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            nodes,
            "numpynet",
            [helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["n", size, size, 3])],
            [
                helper.make_tensor_value_info(
                    "logits", onnx.TensorProto.FLOAT, ["n", len(self.facts.classes)]
                )
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, dict(metadata))
        onnx.save_model(model, path)
