from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from automl_tl.errors import ExportError, PluginError
from automl_tl.types import Head
from automl_tl_torch import model
from automl_tl_torch.model import load_model, save_model

CPU = torch.device("cpu")


@pytest.fixture
def trained(workshop, tmp_path):
    """A workshop, a file of a trained model, and the validation logits it must give."""
    shop = workshop()
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut)
    trainer, _, seen = shop.train(job)
    path = tmp_path / "model.safetensors"
    trainer.save(path, shop.facts(job).metadata())
    return shop, path, seen.reports[-1].validation_logits


def opened(shop, path):
    """Open a file as another process would, which has exported nothing."""
    return load_model(path, CPU, lambda key: shop.backbone)


def assert_gives(found, shop, logits):
    np.testing.assert_allclose(
        found.logits(shop.pixels[shop.validation_rows]), logits, rtol=1e-4, atol=1e-5
    )


def test_a_saved_model_is_opened_without_the_weights_it_started_from(trained):
    shop, path, logits = trained
    assert_gives(opened(shop, path), shop, logits)
    with safe_open(path, "np") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"backbone", "head"}
        network = shop.backend._build(shop.spec).module.state_dict()
        assert {f"backbone.{name}" for name in network} < set(file.keys())
        assert list(file.metadata()) == ["automl_tl"]
    assert os.listdir(path.parent).count("model.safetensors") == 1
    assert not list(path.parent.glob(".*"))


def test_batches_do_not_matter(trained):
    shop, path, _ = trained
    found = opened(shop, path)
    whole = found.logits(shop.pixels)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(found.logits(shop.pixels, batch_size=5), whole, atol=1e-5)
    assert found.logits(shop.pixels[:0]).shape == (0, shop.classes)


def test_pixels_of_another_size_or_type(trained):
    shop, path, _ = trained
    found = opened(shop, path)
    with pytest.raises(ExportError, match=r"expected uint8 pixels of shape \(N, 24, 24, 3\)"):
        found.logits(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ExportError, match="got float32"):
        found.logits(np.zeros((1, 24, 24, 3), np.float32))


def test_flatten_and_hidden_layers_come_back(workshop, tmp_path):
    shop = workshop()
    train, validation = shop.train_and_validation(shop.end)
    head = Head(shop.classes, units=(6, 5), pooling="flatten", scale=0.6)
    job = shop.job(head=head, head_train=train, head_validation=validation)
    trainer, _, seen = shop.train(job)
    trainer.save(tmp_path / "m.safetensors", shop.facts(job).metadata())
    assert_gives(opened(shop, tmp_path / "m.safetensors"), shop, seen.reports[-1].validation_logits)


def test_every_format_is_opened_again(trained, tmp_path):
    shop, path, logits = trained
    source = shop.backend.load(path)
    metadata = shop.facts(shop.job()).metadata()
    for format, suffix in (("torch", ".pt2"), ("safetensors", ".safetensors")):
        target = tmp_path / f"exported{suffix}"
        source.export(format, target, metadata)
        assert_gives(opened(shop, target), shop, logits)
        assert isinstance(opened(shop, target).program, model.Classifier)
    assert not list(tmp_path.glob(".*"))


def test_an_archive_runs_as_a_program_only_where_it_was_written(trained, tmp_path):
    shop, path, logits = trained
    target = tmp_path / "model.pt2"
    shop.backend.load(path).export("torch", target, shop.facts(shop.job()).metadata())
    program = shop.backend.load(target)
    assert not isinstance(program.program, model.Classifier)
    assert_gives(program, shop, logits)
    with pytest.raises(ExportError, match="exported already"):
        program.export("onnx", tmp_path / "again.onnx", {})
    assert isinstance(shop.backend.load(rezip(target, {})).program, model.Classifier)


def rezip(path, changes):
    """Copy an archive, with some of its files replaced."""
    copy = path.with_name("copy.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            inner = name.partition("/")[2]
            new.writestr(name, changes.pop(inner, None) or old.read(name))
        for name, data in changes.items():
            new.writestr("archive/" + name, data)
    return copy


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


CONFIG = "data/weights/model_weights_config.json"


def test_an_archive_that_carries_code_is_refused(trained, tmp_path):
    shop, path, _ = trained
    target = tmp_path / "model.pt2"
    shop.backend.load(path).export("torch", target, shop.facts(shop.job()).metadata())
    if CONFIG not in {name.partition("/")[2] for name in zipfile.ZipFile(target).namelist()}:
        pytest.skip("this PyTorch lays archives out differently")
    bomb = tmp_path / "bomb"
    payload = io.BytesIO()
    torch.save(Bomb(bomb), payload)

    with zipfile.ZipFile(target) as file:
        name = next(name for name in file.namelist() if name.endswith(CONFIG))
        config = json.loads(file.read(name))
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    weights = f"data/weights/{first['path_name']}"
    hostile = rezip(target, {CONFIG: json.dumps(config), weights: payload.getvalue()})
    with pytest.raises(ExportError, match="refused for safety"):
        opened(shop, hostile)
    assert not bomb.exists()

    # The same payload where PyTorch up to 2.8 looks, and beside the tensors, where nobody reads.
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as file:
        file.writestr("version", "8.5")
        file.writestr("serialized_state_dict.pt", payload.getvalue())
    with pytest.raises(ExportError, match="refused for safety"):
        opened(shop, tmp_path / "old.pt2")
    unread = {"data/sample_inputs/model.pt": payload.getvalue()}
    assert opened(shop, rezip(target, unread)).logits(shop.pixels).shape[0] == shop.images
    assert not bomb.exists()
    # The bomb does go off where it is let.
    with pytest.raises(Exception):  # noqa: B017
        torch.export.load(hostile)
    assert bomb.exists()


def test_damaged_archives(trained, tmp_path):
    shop, path, _ = trained
    target = tmp_path / "model.pt2"
    shop.backend.load(path).export("torch", target, shop.facts(shop.job()).metadata())
    with zipfile.ZipFile(target) as file:
        extra = next(name for name in file.namelist() if name.endswith("/automl_tl"))
        facts = json.loads(file.read(extra))
        repeated = json.loads(file.read(next(n for n in file.namelist() if n.endswith(CONFIG))))
    meta = next(iter(repeated["config"].values()))["tensor_meta"]
    meta["sizes"], meta["strides"] = [{"as_int": 10**9}] * 2, [{"as_int": 0}] * 2
    extra = extra.partition("/")[2]
    cases = [
        ({CONFIG: "[]"}, "damaged or of another kind"),
        ({CONFIG: '{"config": {}}'}, "not those of the network"),
        ({"data/weights/weight_0": b"\x00" * 8}, "damaged or of another kind"),
        ({CONFIG: json.dumps(repeated)}, "a tensor that is larger than its values"),
        ({extra: "{}"}, "its automl-tl metadata is damaged"),
        ({extra: json.dumps(facts | {"image_size": "big"})}, "cannot be rebuilt"),
        ({extra: json.dumps(facts | {"image_size": 2})}, "cannot be rebuilt"),
    ]
    for changes, message in cases:
        with pytest.raises(ExportError, match=message):
            opened(shop, rezip(target, changes))
    cut_short = tmp_path / "short.pt2"
    cut_short.write_bytes(target.read_bytes()[:-5000])
    with pytest.raises(ExportError, match="damaged or of another kind"):
        opened(shop, cut_short)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.safetensors", b""),
        ("text.safetensors", b"not a model at all"),
        ("pickle.safetensors", pickle.dumps({"weights": [1, 2]})),
        ("short.safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00{"),
        ("huge.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        ("broken.pt2", b"PK\x03\x04" + b"\x00" * 100),
    ],
)
def test_files_that_are_no_model(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=name):
        load_model(tmp_path / name, CPU, lambda key: None)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ExportError, match="expected a model file, but"):
            load_model(path, CPU, lambda key: None)


def test_other_zips_are_no_models(tmp_path):
    path = tmp_path / "photos.zip"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as file:
            file.writestr("photos/a.jpg", "x" * 1000)
        with pytest.raises(ExportError, match="expected an archive that automl-tl exported"):
            load_model(path, CPU, lambda key: None)


def test_safetensors_of_somebody_else(trained, tmp_path):
    shop, path, _ = trained
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2)}, foreign)
    with pytest.raises(ExportError, match="carries no automl-tl metadata"):
        opened(shop, foreign)
    metadata = shop.facts(shop.job()).metadata()
    tensors = load_file(path)
    fewer = {name: tensor for name, tensor in tensors.items() if name != "head.layers.0.weight"}
    save_file(fewer, foreign, metadata)
    with pytest.raises(ExportError, match="not those of the network that it names"):
        opened(shop, foreign)
    save_file({**tensors, "head.layers.0.bias": torch.ones(3)}, foreign, metadata)
    with pytest.raises(ExportError, match="not those of the network that it names"):
        opened(shop, foreign)
    wide = replace(shop.facts(shop.job()), head=Head(shop.classes, units=(10**7, 10**7)))
    save_file(tensors, foreign, wide.metadata())
    with pytest.raises(ExportError, match=r"its head has [\d,]+ parameters, not \d+"):
        opened(shop, foreign)
    foreign.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"foreign\.safetensors: the file is damaged"):
        opened(shop, foreign)


def test_a_backbone_that_is_not_installed(trained):
    _, path, _ = trained

    def absent(key):
        raise PluginError(f"no plugin provides {key}.")

    with pytest.raises(ExportError, match=r"torch/tiny cannot be rebuilt .no plugin provides"):
        load_model(path, CPU, absent)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "model.safetensors"
    save_model(target, {"head.x": torch.ones(2)}, {"a": "b"})
    before = target.read_bytes()
    with pytest.raises(Exception, match=r"metadata|str"):
        save_model(target, {"head.x": torch.zeros(2)}, {"a": 1})
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(ExportError, match="choose a folder that exists"):
        save_model(tmp_path / "nowhere" / "model.safetensors", {"head.x": torch.ones(2)}, {})


def test_an_unknown_format(trained, tmp_path):
    shop, path, _ = trained
    with pytest.raises(ExportError, match="expected onnx, torch or safetensors, got 'tflite'"):
        opened(shop, path).export("tflite", tmp_path / "m.tflite", {})


def test_a_file_is_the_same_in_another_process(trained):
    shop, path, _ = trained
    np.save(path.parent / "some.npy", shop.pixels[:4])
    code = f"""
import numpy as np, torch
from pathlib import Path
from automl_tl_torch.model import load_model
from automl_tl_torch.tiny import tiny_backbone
torch.set_num_threads(1)
path = Path({str(path)!r})
found = load_model(path, torch.device("cpu"), lambda key: tiny_backbone())
print(found.logits(np.load(path.parent / "some.npy")).tobytes().hex())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = opened(shop, Path(path)).logits(shop.pixels[:4])
    assert run.stdout.strip() == expected.tobytes().hex()
