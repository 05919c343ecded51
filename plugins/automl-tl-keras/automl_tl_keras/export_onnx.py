"""Writing whole models as ONNX.

On TensorFlow, tf2onnx converts the computation with the weights as inputs, which then become
constants again. With constants from the start it took 50 times the memory of the weights: 10 GB
for 184 MB.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl_keras.whole import Whole

OPSET = 18
"""Opset of exported ONNX files: the newest of tf2onnx, and runtimes since 2023 read it."""


def write_onnx(model: Whole, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one self-contained ONNX file.

    Input ``pixels``, uint8 RGB ``(batch, S, S, 3)``; output ``logits``, float32
    ``(batch, classes)``; any batch size from 1. ``metadata`` become its ``metadata_props``.
    """
    import onnx

    if keras.config.backend() == "tensorflow":
        proto = _from_tensorflow(model)
    else:
        shape = (None, model.image_size, model.image_size, 3)
        pixels = keras.InputSpec(shape=shape, dtype="uint8", name="pixels")
        model.program.export(
            str(path), "onnx", verbose=False, input_signature=[pixels], opset_version=OPSET
        )
        proto = onnx.load(str(path))
        _rename_output(proto.graph, "logits")
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto)
    onnx.save_model(proto, str(path))


def _from_tensorflow(model: Whole) -> Any:
    import tensorflow as tf
    import tf2onnx

    program = model.program
    trainable, others = program.trainable_variables, program.non_trainable_variables

    def classify(pixels: Any, *weights: Any) -> dict[str, Any]:
        count = len(trainable)
        logits, _ = program.stateless_call(weights[:count], weights[count:], pixels, training=False)
        return {"logits": logits}

    named = {f"weight_{i}": variable for i, variable in enumerate([*trainable, *others])}
    signature = [
        tf.TensorSpec((None, model.image_size, model.image_size, 3), tf.uint8, name="pixels"),
        *(tf.TensorSpec(v.shape, v.dtype, name=name) for name, v in named.items()),
    ]
    function = tf.function(classify, input_signature=signature)
    with _inlined():
        concrete = function.get_concrete_function()
    proto, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
    values = {name: keras.ops.convert_to_numpy(variable) for name, variable in named.items()}
    # Constants outside of variables, which Normalization keeps, are inputs too.
    captured = zip(concrete.inputs[len(signature) :], concrete.captured_inputs, strict=True)
    values.update((place.name, keras.ops.convert_to_numpy(value)) for place, value in captured)
    _embed(proto, values)
    _express_erfc(proto.graph)
    return proto


@contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions inside functions as if their operations stood in the outer one.

    Keras wraps grouped convolutions in a function for XLA, which ONNX cannot call.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _embed(proto: Any, values: Mapping[str, NDArray[np.generic]]) -> None:
    """Turn inputs into constants, and compute what depends on constants alone."""
    from onnx import numpy_helper

    graph = proto.graph
    constants = {place.name: values[place.name] for place in graph.input if place.name in values}
    constants |= {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    known, fixed, free = set(constants), [], []
    for node in graph.node:
        if known.issuperset(node.input):
            known.update(node.output)
            fixed.append(node)
        else:
            free.append(node)
    used = {name for node in free for name in node.input} & known
    wanted = sorted(used - constants.keys())
    constants |= dict(zip(wanted, _compute(proto, fixed, constants, wanted), strict=True))
    pixels = [place for place in graph.input if place.name not in values]
    for field, content in (
        (graph.input, pixels),
        (graph.node, free),
        (graph.initializer, [_tensor(constants[name], name) for name in sorted(used)]),
    ):
        del field[:]
        field.extend(content)


def _compute(
    proto: Any, nodes: list[Any], constants: Mapping[str, NDArray[Any]], wanted: list[str]
) -> list[NDArray[Any]]:
    """Run nodes of a model that depend on constants alone; returns the wanted results."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    if not wanted:
        return []
    places = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in constants.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in wanted]
    graph = helper.make_graph(nodes, "constants", places, results)
    part = helper.make_model(graph, opset_imports=proto.opset_import)
    found: Any = ReferenceEvaluator(part).run(wanted, dict(constants))
    return list(found)


def _tensor(value: NDArray[Any], name: str) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(value, order="C"), name)


def _express_erfc(graph: Any) -> None:
    """Write ``Erfc(x)``, a part of GELU that ONNX lacks, as ``1 - Erf(x)``."""
    from onnx import helper

    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        [output] = node.output
        nodes.append(helper.make_node("Erf", node.input, [f"{output}_erf"]))
        nodes.append(helper.make_node("Sub", ["erfc_one", f"{output}_erf"], [output]))
    if len(nodes) > len(graph.node):
        graph.initializer.append(_tensor(np.array(1, np.float32), "erfc_one"))
        del graph.node[:]
        graph.node.extend(nodes)


def _rename_output(graph: Any, name: str) -> None:
    [output] = graph.output
    for node in graph.node:
        for names in (node.output, node.input):
            for index, old in enumerate(names):
                if old == output.name:
                    names[index] = name
    output.name = name
