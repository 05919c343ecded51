"""Several ONNX files as one: the same pixels go to all, and the mean of their answers comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl.errors import ExportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def require_onnx() -> None:
    """Raise ``UsageError`` unless the package onnx is here; it comes with the plugins."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError(
            "Expected the package onnx, which joins the members of an ensemble, but it is not "
            "installed; `pip install onnx`."
        ) from None


def merge(
    files: Sequence[Path],
    weights: Sequence[float],
    path: Path,
    metadata: Mapping[str, str],
    *,
    image_size: int,
    classes: int,
    temperature: float = 1.0,
) -> None:
    """Write one ONNX file that averages the probabilities of several.

    Weights that members have in common are stored once, so that onnxruntime computes a frozen
    backbone only once for all its heads. The output ``logits`` is the logarithm of the weighted
    mean of the members' softmax, which its own softmax gives back, divided by a temperature.

    Args:
        files: Members, each with one input uint8 ``(N, S, S, 3)`` and one output float32
            ``(N, classes)``.
        weights: Of each member; positive, they sum to 1.
        path: To write.
        metadata: Becomes the file's ``metadata_props``.
        image_size: S of all members.
        classes: Of all members, in the same order.
        temperature: Divides the logarithm of the mean.

    Raises:
        UsageError: When the package onnx is missing.
        ExportError: When the members cannot be joined.
    """
    require_onnx()
    import onnx
    from onnx import TensorProto, helper

    try:
        members = _members(files)
        nodes: list[Any] = []
        tensors: list[Any] = []
        domains: dict[str, int] = {}
        for member in members:
            graph = member.graph
            nodes.append(helper.make_node("Identity", ["pixels"], [graph.input[0].name]))
            nodes += graph.node
            tensors += graph.initializer
            domains |= {entry.domain: entry.version for entry in member.opset_import}
        outputs = [member.graph.output[0].name for member in members]
        nodes += _mean(outputs, weights, temperature, tensors)
        pixels: list[str | int | None] = ["N", image_size, image_size, 3]
        graph = helper.make_graph(
            nodes,
            "ensemble",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, pixels)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            tensors,
        )
        _share(graph)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*entry) for entry in domains.items()],
            ir_version=max(member.ir_version for member in members),
            producer_name="automl-tl",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save_model(model, path)
    except Exception as error:  # onnx's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"The members of the ensemble cannot be joined in one ONNX file ({lines[0]}); export "
            "them one by one."
        ) from error


def _members(files: Sequence[Path]) -> list[Any]:
    """Read the files, of one opset, without functions and with no name in common."""
    import onnx
    from onnx import inliner, version_converter

    models = [inliner.inline_local_functions(onnx.load_model(file)) for file in files]
    opset = max(map(_opset, models))
    models = [
        model if _opset(model) == opset else version_converter.convert_version(model, opset)
        for model in models
    ]
    for number, model in enumerate(models):
        # onnx.compose.add_prefix misses what a branch uses from outside.
        _rename(model.graph, _prefixed(f"member_{number}/"))
    return models


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: name and prefix + name  # an input that is left out has no name


def _opset(model: Any) -> int:
    return int(next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx")))


def _mean(
    outputs: Sequence[str], weights: Sequence[float], temperature: float, tensors: list[Any]
) -> list[Any]:
    """Return nodes for ``log(sum(weight * softmax(output))) / temperature``, without underflow."""
    import numpy as np
    from onnx import helper, numpy_helper

    parts = [f"mean/part_{number}" for number in range(len(outputs))]
    powers = [f"mean/power_{number}" for number in range(len(outputs))]
    before, after = [], []
    for output, weight, part, power in zip(outputs, weights, parts, powers, strict=True):
        tensors.append(
            numpy_helper.from_array(np.array(np.log(weight), np.float32), f"{part}_weight")
        )
        before += [
            helper.make_node("LogSoftmax", [output], [f"{part}_log"], axis=1),
            helper.make_node("Add", [f"{part}_log", f"{part}_weight"], [part]),
        ]
        after += [
            helper.make_node("Sub", [part, "mean/top"], [f"{part}_below"]),
            helper.make_node("Exp", [f"{part}_below"], [power]),
        ]
    nodes = [
        *before,
        helper.make_node("Max", parts, ["mean/top"]),
        *after,
        helper.make_node("Sum", powers, ["mean/sum"]),
        helper.make_node("Log", ["mean/sum"], ["mean/log"]),
        helper.make_node("Add", ["mean/log", "mean/top"], ["mean/logits"]),
    ]
    divisor = np.array(temperature, np.float32)
    tensors.append(numpy_helper.from_array(divisor, "mean/temperature"))
    return [*nodes, helper.make_node("Div", ["mean/logits", "mean/temperature"], ["logits"])]


def _share(graph: Any) -> None:
    """Store equal tensors once."""
    kept: dict[tuple[Any, ...], Any] = {}
    names: dict[str, str] = {}
    for tensor in graph.initializer:
        content = (tensor.data_type, tuple(tensor.dims), _content(tensor))
        names[tensor.name] = kept.setdefault(content, tensor).name
    tensors = list(kept.values())
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    _rename(graph, lambda name: names.get(name, name))


def _content(tensor: Any) -> bytes:
    from onnx import numpy_helper

    return bytes(numpy_helper.to_array(tensor).tobytes())


def _rename(graph: Any, rename: Callable[[str], str]) -> None:
    """Rename every value and node of a graph and of the branches in it."""
    for thing in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        thing.name = rename(thing.name)
    for node in graph.node:
        node.input[:] = map(rename, node.input)
        node.output[:] = map(rename, node.output)
        for attribute in node.attribute:
            for branch in [attribute.g, *attribute.graphs]:
                _rename(branch, rename)
