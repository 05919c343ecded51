from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from automl_tl.errors import ExportError
from automl_tl.onnx_file import read_metadata, refers_to_other_files
from automl_tl.predict import open_model


def external(name="weights", shape=(192, 3)):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    return tensor


def in_initializer(model):
    model.graph.initializer.append(external())


def in_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external()))


def in_branch(model):
    branch = helper.make_graph([], "branch", [], [], [external()])
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["c"], then_branch=branch, else_branch=branch)
    )


def in_function(model):
    node = helper.make_node("Constant", [], ["c"], value=external())
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("local", "f", [], ["c"], [node], opset))


def in_sparse(model):
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(external("values", (1,)), indices, [192, 3])
    )


def in_training(model):
    model.training_info.add().algorithm.initializer.append(external())


def location_only(model):
    tensor = external()
    del tensor.external_data[:]
    model.graph.initializer.append(tensor)


PLACES = [
    in_initializer,
    in_constant,
    in_branch,
    in_function,
    in_sparse,
    in_training,
    location_only,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_reference_to_another_file_is_found_wherever_it_is(place, write_onnx):
    model = onnx.load_model(write_onnx())
    assert not refers_to_other_files(model.SerializeToString())
    place(model)
    assert refers_to_other_files(model.SerializeToString())


def test_no_other_file_is_opened_not_even_in_the_working_directory(
    write_onnx, make_onnx, weights, tmp_path, monkeypatch
):
    model = make_onnx(weights, 8)
    del model.graph.initializer[1]
    model.graph.initializer.append(external())
    path = write_onnx("model.onnx", model)
    (tmp_path / "secret.bin").write_bytes(weights.astype(np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    # The danger is real: onnxruntime alone would have opened it.
    onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    with pytest.raises(ExportError, match=r"self-contained.*not opened"):
        open_model(path)


def test_metadata_is_what_onnxruntime_reads(write_onnx, facts):
    path = write_onnx(metadata={**facts.metadata(), "ключ": "значение", "empty": ""})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert read_metadata(path.read_bytes()) == session.get_modelmeta().custom_metadata_map


def test_nesting_is_bounded():
    graph = helper.make_graph([], "innermost", [], [])
    for depth in range(30):
        graph = helper.make_graph([helper.make_node("If", [], [], then_branch=graph)], "", [], [])
        data = helper.make_model(graph).SerializeToString() if depth in (10, 29) else b""
        if depth == 10:
            assert not refers_to_other_files(data)
    with pytest.raises(ValueError, match="deeply"):
        refers_to_other_files(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data):
    for read in (read_metadata, refers_to_other_files):
        try:
            read(data)
        except ValueError:
            pass


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_cut_file_is_never_taken_for_a_whole_one(data):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"key": "value"})
    whole = model.SerializeToString()
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    try:
        assert read_metadata(cut) == {}
    except ValueError:
        pass
