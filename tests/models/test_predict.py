from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile

import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors.numpy import save_file

from automl_tl import onnx_model
from automl_tl.data.decode import decode
from automl_tl.data.squares import Squares
from automl_tl.errors import ExportError, ImageError, UsageError
from automl_tl.identify import identify
from automl_tl.metrics import probabilities
from automl_tl.predict import find_images, open_model
from automl_tl.types import Head


def test_pictures_get_their_colours_in_order(write_onnx, photos):
    with open_model(write_onnx()) as predictor:
        found = list(predictor.classify([photos], top=2))
    assert len(found) == 9
    for prediction in found:
        assert prediction.error is None
        assert prediction.ranked[0][0] == prediction.path.parent.name
        assert len(prediction.ranked) == 2
        assert prediction.ranked[0][1] > prediction.ranked[1][1]
    assert [p.path for p in found] == sorted(p.path for p in found)


def test_probabilities_are_those_of_the_decoded_pixels(write_onnx, photos, weights):
    image = photos / "red" / "1.jpg"
    with open_model(write_onnx()) as predictor:
        (found,) = predictor.classify([image], top=99)
    pixels = decode(image.read_bytes(), 8, "squash")
    logits = (pixels.reshape(1, -1) / 255 @ weights).astype(np.float32)
    expected = dict(zip(("blue", "green", "red"), probabilities(logits)[0], strict=True))
    assert dict(found.ranked) == pytest.approx(expected, rel=1e-4)
    assert sum(share for _, share in found.ranked) == pytest.approx(1)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_the_resize_rule_is_the_models(write_onnx, tmp_path, resize):
    # Red in the middle, blue on both sides: a crop sees red only.
    pixels = np.zeros((20, 80, 3), np.uint8)
    pixels[:, :, 2] = 255
    pixels[:, 30:50] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    with open_model(write_onnx(resize=resize)) as predictor:
        (found,) = predictor.classify([tmp_path / "wide.png"])
    assert found.ranked[0][0] == ("red" if resize == "crop" else "blue")


def test_broken_and_missing_images_are_named_and_the_rest_goes_on(write_onnx, photos, tmp_path):
    (tmp_path / "notes.jpg").write_text("not a photo at all")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["notes.jpg", "empty.png", "gone.jpg", "folder", "pipe.jpg", "x" * 300]
    images = [tmp_path / name for name in names]
    good = photos / "green" / "0.png"
    with open_model(write_onnx()) as predictor:
        found = list(predictor.classify([*images, good], batch_size=4))
    assert [p.path for p in found] == [*images, good]
    assert found[-1].ranked[0][0] == "green"
    assert [p.error for p in found[1:6]] == [
        "empty file",
        "no such file",
        "a folder without any image",
        "no regular file",
        "no such file",
    ]
    assert "not an image" in str(found[0].error)
    assert not any(p.ranked for p in found[:6])


def test_batches_change_nothing(write_onnx, photos):
    with open_model(write_onnx()) as predictor:
        one, many = ([s.logits for s in predictor.score(find_images([photos]), n)] for n in (1, 4))
    assert np.allclose(one, many, rtol=1e-5)


def test_folders_are_searched_without_hidden_files_and_circles(photos):
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "x.png").touch()
    (photos / "Thumbs.db").touch()
    (photos / "red" / "again").symlink_to(photos)
    found = [path.relative_to(photos).as_posix() for path in find_images([photos])]
    assert len(found) == 9
    assert found == sorted(found) and found[0] == "blue/0.png"


def test_top_less_than_one_is_refused_at_once(write_onnx):
    with open_model(write_onnx()) as predictor, pytest.raises(UsageError, match="0"):
        predictor.classify([], top=0)


def test_the_suffix_of_a_model_means_nothing(write_onnx, photos):
    path = write_onnx()
    odd = path.rename(path.with_name("model 模型.jpg"))
    with open_model(str(odd)) as predictor:
        assert predictor.runtime == "onnxruntime"
        assert next(predictor.classify([photos])).ranked[0][0] == "blue"


def test_files_that_are_no_models(tmp_path):
    def refused(name, pattern, data=None):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ExportError, match=pattern) as caught:
            open_model(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    refused("gone.onnx", "no such file")
    refused("x" * 300, "no such file")
    refused("folder.onnx", "folder")
    refused("pipe.onnx", "no regular file")
    refused("empty.onnx", "empty", b"")
    refused("text.onnx", "no model file|no automl-tl", b"Dear model,\nhow are you?\n" * 50)
    refused("zeros.onnx", "no model file", bytes(1000))
    refused("half.zip", "no model file", b"PK\x03\x04" + bytes(100))
    refused("bad.safetensors", "no model file", b"\x10" + bytes(7) + b'{"not json      ')
    refused("deep.safetensors", "damaged", safetensors_header({"automl_tl": "[" * 100_000}))
    refused("null.safetensors", "no automl-tl metadata", safetensors_header(None))


def safetensors_header(metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    return len(header).to_bytes(8, "little") + header


def test_other_peoples_models_are_refused(write_onnx, tmp_path):
    with pytest.raises(ExportError, match="no automl-tl metadata"):
        open_model(write_onnx(metadata={"author": "somebody"}))
    save_file({"w": np.zeros(3)}, tmp_path / "theirs.safetensors")
    with pytest.raises(ExportError, match="no automl-tl metadata"):
        open_model(tmp_path / "theirs.safetensors")
    with zipfile.ZipFile(tmp_path / "archive.pt2", "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(ExportError, match="no automl-tl metadata"):
        open_model(tmp_path / "archive.pt2")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 0},
        {"image_size": 10**9},
        {"image_size": "8"},
        {"resize": "stretch"},
        {"classes": ()},
        {"classes": ("a", "a", "b")},
        {"params": "x"},
        {"backbone": None},
        {"head": Head(2)},
        {"head": Head(True)},
        {"head": Head(3, units=(2, 0))},
        {"head": Head(3, units=(4, -2))},
        {"head": Head(3, units=(20_000, 400_000))},
        {"head": Head(3, dropout=1.0)},
        {"head": Head(3, dropout=None)},
        {"head": Head(3, pooling="x")},
        {"head": Head(3, pooling=["avg"])},
        {"head": Head(3, scale=None)},
        {"head": Head(3, scale=[1])},
        {"head": Head(3, scale=0.0)},
        {"head": Head(3, scale=float("nan"))},
        {"head": Head(3, scale=float("inf"))},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(write_onnx, changes):
    with pytest.raises(ExportError, match=f"damaged.*{next(iter(changes))}"):
        open_model(write_onnx(**changes))


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"format": 1}', '{"format": 99}'])
def test_metadata_that_is_no_mapping_of_facts_is_refused(write_onnx, text):
    with pytest.raises(ExportError, match=r"model\.onnx"):
        open_model(write_onnx(metadata={"automl_tl": text}))


def test_metadata_that_contradicts_the_graph_is_refused(write_onnx, make_onnx, weights, facts):
    other_size = write_onnx("a.onnx", make_onnx(np.zeros((300, 3)), 10))
    with pytest.raises(ExportError, match=r"\(N, 8, 8, 3\).*10, 10, 3"):
        open_model(other_size)
    two_classes = write_onnx("b.onnx", make_onnx(weights[:, :2], 8))
    with pytest.raises(ExportError, match="3 float logits"):
        open_model(two_classes)
    fixed_batch = write_onnx("c.onnx", make_onnx(weights, 8, batch=1))
    with pytest.raises(ExportError, match="but the graph has"):
        open_model(fixed_batch)


def test_damaged_models_raise_one_sentence(write_onnx):
    path = write_onnx()
    data = path.read_bytes()
    opened = 0
    for cut in range(0, len(data), 97):
        path.write_bytes(data[:cut])
        with pytest.raises(ExportError):
            open_model(path)
    generator = np.random.default_rng(0)
    for _ in range(60):
        flipped = bytearray(data)
        for at in generator.integers(len(data), size=3):
            flipped[at] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        try:
            open_model(path).logits(np.zeros((2, 8, 8, 3), np.uint8))
            opened += 1
        except ExportError as error:
            assert "\n" not in str(error)
    assert opened, "flips inside the weights cannot be noticed"


def test_logits_that_are_not_numbers_are_told(write_onnx, make_onnx, weights, photos):
    path = write_onnx("nan.onnx", make_onnx(weights * np.nan, 8))
    with open_model(path) as predictor:
        (found,) = predictor.classify([photos / "red" / "0.png"])
    assert "NaN" in str(found.error) and not found.ranked


def test_devices(write_onnx):
    with pytest.raises(UsageError, match="'tpu'"):
        open_model(write_onnx(), device="tpu")
    assert onnx_model._providers("auto", ["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    with pytest.raises(UsageError, match="onnxruntime-gpu"):
        onnx_model._providers("cuda:0", ["CPUExecutionProvider"])
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    first = ("CUDAExecutionProvider", {"device_id": 1})
    assert onnx_model._providers("cuda:1", both) == [first, "CPUExecutionProvider"]
    assert onnx_model._providers("cpu", both) == ["CPUExecutionProvider"]


def test_an_empty_batch_gives_no_logits(write_onnx):
    with open_model(write_onnx()) as predictor:
        logits = predictor.logits(np.zeros((0, 8, 8, 3), np.uint8))
    assert logits.shape == (0, 3) and logits.dtype == np.float32


def test_facts_are_read_from_every_container(write_onnx, facts, tmp_path):
    assert identify(write_onnx()).facts.metadata() == facts.metadata()
    save_file({"w": np.zeros(3)}, tmp_path / "m.safetensors", metadata=facts.metadata())
    found = identify(tmp_path / "m.safetensors")
    assert (found.kind, found.facts.metadata()) == ("safetensors", facts.metadata())
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/extra/automl_tl", facts.metadata()["automl_tl"])
    found = identify(tmp_path / "m.pt2")
    assert (found.kind, found.facts.metadata()) == ("archive", facts.metadata())


def test_a_model_of_an_unknown_backend_is_told(tmp_path, write_onnx, facts):
    changed = facts.metadata()["automl_tl"].replace("torch/tiny", "nowhere/tiny")
    save_file({"w": np.zeros(3)}, tmp_path / "m.safetensors", metadata={"automl_tl": changed})
    with pytest.raises(UsageError, match="nowhere"):
        open_model(tmp_path / "m.safetensors")


def test_predict_needs_no_framework(write_onnx, photos, run_without_frameworks):
    code = (
        "from automl_tl.predict import open_model\n"
        "with open_model(sys.argv[1]) as predictor:\n"
        "    for p in predictor.classify(sys.argv[2:]):\n"
        "        print(p.path.parent.name, p.ranked[0][0])\n"
        "for name in ('sklearn', 'optuna', 'scipy'):\n"
        "    assert name not in sys.modules, name\n"
    )
    lines = run_without_frameworks(code, write_onnx(), photos).splitlines()
    assert len(lines) == 9
    assert all(line.split()[0] == line.split()[1] for line in lines)


def test_the_command_needs_no_framework(write_onnx, photos, run_without_frameworks):
    code = "from automl_tl.cli.errors import run\nsys.exit(run(sys.argv[1:]))\n"
    printed = run_without_frameworks(code, "predict", write_onnx(), photos / "red", "--json")
    assert [p["classes"][0]["class"] for p in json.loads(printed)] == ["red"] * 3


def test_a_model_can_be_moved_alone(write_onnx, photos, tmp_path):
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    moved = shutil.move(write_onnx(), lonely / "m.onnx")
    assert onnx.load_model(moved, load_external_data=False).graph.initializer
    with open_model(moved) as predictor:
        assert next(predictor.classify([photos / "red"])).ranked[0][0] == "red"


def test_folders_that_cannot_be_read_are_named(photos, monkeypatch):
    scandir = os.scandir
    locked = {str(photos / "green"), str(photos / "red" / "more")}
    (photos / "red" / "more").mkdir()

    def denied(path):
        if str(path) in locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = list(find_images([photos]))
    assert {str(path) for path in found if path.is_dir()} == locked
    assert len(found) == 8
    assert list(find_images([photos / "green"])) == [photos / "green"]
    with pytest.raises(ImageError, match="Permission denied"):
        Squares().start()((str(photos / "green"), 8, "squash"))
