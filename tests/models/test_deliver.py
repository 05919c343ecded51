from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.deliver import _format
from automl_tl.errors import UsageError
from automl_tl.specs import BackendSpec


@pytest.fixture
def backend():
    formats = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
    return BackendSpec("torch", load=NotImplemented, formats=formats)


def test_the_suffix_tells_the_format(backend):
    assert _format(backend, Path("out.pt2")) == "torch"
    assert _format(backend, Path("OUT.ONNX")) == "onnx"
    assert _format(backend, Path("out")) == "onnx"


def test_a_format_of_another_backend_is_told_with_those_that_there_are(backend):
    pattern = r"a torch model, onnx \(\.onnx\), torch \(\.pt2\), safetensors .*got out\.tflite"
    with pytest.raises(UsageError, match=pattern):
        _format(backend, Path("out.tflite"))
