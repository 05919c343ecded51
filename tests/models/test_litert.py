from __future__ import annotations

import zipfile

import numpy as np
import pytest

from automl_tl import litert_model
from automl_tl.errors import ExportError, UsageError
from automl_tl.identify import identify
from automl_tl.predict import open_model

pytestmark = pytest.mark.skipif(
    not litert_model.available(), reason="ai-edge-litert is not installed"
)


def test_pictures_get_their_colours(write_litert, photos):
    with open_model(write_litert()) as predictor:
        assert predictor.runtime == "LiteRT"
        found = list(predictor.classify([photos], top=2))
    assert len(found) == 9
    assert all(p.ranked[0][0] == p.path.parent.name for p in found)


def test_logits_are_those_of_onnxruntime_at_any_batch_size(write_litert, write_onnx):
    pixels = np.random.default_rng(0).integers(256, size=(10, 8, 8, 3), dtype=np.uint8)
    with open_model(write_onnx()) as predictor:
        expected = predictor.logits(pixels)
    with open_model(write_litert(), device="cpu") as predictor:
        for batch_size in (1, 3, 10, 64):
            logits = predictor.logits(pixels, batch_size)
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        assert predictor.logits(pixels[:0]).shape == (0, 3)


def test_the_facts_travel_as_an_appended_zip(write_litert, facts):
    path = write_litert("odd name.bin")
    assert zipfile.ZipFile(path).namelist() == ["automl_tl.json"]
    found = identify(path)
    assert (found.kind, found.facts.metadata()) == ("litert", facts.metadata())


def test_other_peoples_models_are_refused(write_litert):
    with pytest.raises(ExportError, match="no automl-tl metadata"):
        open_model(write_litert(metadata={}))
    with pytest.raises(ExportError, match="no automl-tl metadata"):
        open_model(write_litert("theirs.tflite", metadata={"labels": "{}"}))


def test_metadata_that_contradicts_the_graph_is_refused(write_litert, make_litert, weights):
    other_size = write_litert("a.tflite", make_litert(np.zeros((300, 3)), 10))
    with pytest.raises(ExportError, match=r"\(N, 8, 8, 3\).*\[-1, 10, 10, 3\]"):
        open_model(other_size)
    two_classes = write_litert("b.tflite", make_litert(weights[:, :2], 8))
    with pytest.raises(ExportError, match=r"3 float32 logits.*\[-1, 2\]"):
        open_model(two_classes)
    fixed_batch = write_litert("c.tflite", make_litert(weights, 8, batch=1))
    with pytest.raises(ExportError, match="but the graph has"):
        open_model(fixed_batch)


def test_a_tensor_beyond_all_measure_is_refused(write_litert, make_litert, weights):
    shape, asked = (np.array([n, 8, 8, 3], "<i4").tobytes() for n in (1, 2**28))
    data = make_litert(weights, 8)
    assert data.count(shape) == 2
    huge = data.replace(shape, asked)
    with pytest.raises(ExportError, match="at most 2147483648 bytes"):
        open_model(write_litert("huge.tflite", huge))


def test_devices(write_litert):
    with pytest.raises(UsageError, match=r"'cuda:0'.*ONNX"):
        open_model(write_litert(), device="cuda:0")


FUZZ = """
import resource
import numpy as np
from automl_tl.errors import ExportError
from automl_tl.predict import open_model

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
path = sys.argv[1]
data = open(path, "rb").read()
rng = np.random.default_rng(0)

def attempt(changed):
    open(path, "wb").write(changed)
    try:
        logits = open_model(path).logits(np.zeros((2, 8, 8, 3), np.uint8))
        assert logits.shape == (2, 3)
        return "opened"
    except ExportError as error:
        assert "\\n" not in str(error), error
        return "refused"

told = [attempt(data[:cut]) for cut in range(0, len(data), 41)]
for _ in range(400):
    changed = bytearray(data)
    for at in rng.integers(len(data), size=3):
        changed[at] ^= 1 << int(rng.integers(8))
    told.append(attempt(changed))
print(told.count("opened"), told.count("refused"))
"""


def test_damaged_models_raise_one_sentence(write_litert, run_without_frameworks):
    opened, refused = map(int, run_without_frameworks(FUZZ, write_litert()).split())
    assert opened, "flips inside the weights cannot be noticed"
    assert refused > 100


def test_predict_needs_no_framework(write_litert, photos, run_without_frameworks):
    code = (
        "from automl_tl.cli.errors import run\n"
        "code = run(sys.argv[1:])\n"
        "assert 'ai_edge_litert' in sys.modules\n"
        "sys.exit(code)\n"
    )
    printed = run_without_frameworks(code, "predict", write_litert(), photos / "red", "--top", "1")
    lines = printed.splitlines()
    assert len(lines) == 3
    assert all(": red " in line for line in lines)
