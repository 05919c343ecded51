from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from automl_tl.errors import ExportError
from automl_tl.types import Head
from automl_tl_torch import export
from automl_tl_torch.head import HeadModule
from automl_tl_torch.model import Classifier, TorchModel, load_model

CPU = torch.device("cpu")
QUICK = [("tiny", 24), ("squeezenet1_1", 48)]
SLOW = [
    ("mobilenet_v2", 48),
    ("resnet18", 48),
    ("efficientnet_b0", 48),
    ("convnext_tiny", 48),
    ("densenet121", 48),
    ("swin_t", 64),
    ("vit_b_32", 224),
    ("inception_v3", 96),
    ("shufflenet_v2_x0_5", 48),
    ("maxvit_t", 224),
]


def model_of(shop, head=None):
    network = shop.backend._build(shop.spec).copy()
    network.eval()
    head = head or Head(shop.classes, units=(16,), dropout=0.3, scale=0.6)
    module = HeadModule(head, shop.info.cuts[-1].shape, seed=3)
    return TorchModel(Classifier(network, module).eval(), shop.spec.image_size, CPU, set())


def metadata_of(shop, head=None):
    job = shop.job(head=head) if head else shop.job()
    return shop.facts(job).metadata()


def assert_equal(found, expected):
    assert len(expected) == 1 or np.ptp(expected, axis=0).max() > 1e-3  # the images differ
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    ("name", "size"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_onnx_gives_the_logits_of_the_model(workshop, tmp_path, name, size):
    shop = workshop(name, size, 12)
    trained = model_of(shop)
    expected = trained.logits(shop.pixels)
    path = tmp_path / "model.onnx"
    trained.export("onnx", path, metadata_of(shop))
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 2, 5):
        (found,) = session.run(None, {"pixels": shop.pixels[:batch]})
        assert_equal(found, expected[:batch])
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("name", "size"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_an_archive_gives_the_logits_of_the_model(workshop, tmp_path, name, size):
    shop = workshop(name, size, 12)
    trained = model_of(shop)
    expected = trained.logits(shop.pixels)
    path = tmp_path / "model.pt2"
    trained.export("torch", path, metadata_of(shop))
    program = torch.export.load(path).module()
    with torch.inference_mode():
        for batch in (1, 2, 5):
            found = program(torch.from_numpy(shop.pixels[:batch])).numpy()
            assert_equal(found, expected[:batch])
    rebuilt = load_model(path, CPU, lambda key: shop.backbone)
    assert_equal(rebuilt.logits(shop.pixels), expected)


@pytest.mark.parametrize("units", [(), (16,)])
def test_a_temperature_divides_the_logits_of_every_format(workshop, tmp_path, units):
    shop = workshop()
    head = Head(shop.classes, units=units, scale=0.6)
    trained = model_of(shop, head)
    for parameter in trained.program.head.parameters():
        parameter.detach().add_(0.1)  # a bias of its own is no longer zero
    expected = trained.logits(shop.pixels) / 2.5
    trained.calibrate(2.5)
    assert_equal(trained.logits(shop.pixels), expected)
    for format, suffix in (("onnx", "onnx"), ("torch", "pt2"), ("safetensors", "safetensors")):
        trained.export(format, tmp_path / f"m.{suffix}", metadata_of(shop, head))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert_equal(session.run(None, {"pixels": shop.pixels})[0], expected)
    for suffix in ("pt2", "safetensors"):
        opened = load_model(tmp_path / f"m.{suffix}", CPU, lambda key: shop.backbone)
        assert_equal(opened.logits(shop.pixels), expected)
    program = torch.export.load(tmp_path / "m.pt2").module()
    with pytest.raises(ExportError, match="exported already"):
        TorchModel(program, shop.spec.image_size, CPU, set()).calibrate(2.0)


@pytest.mark.parametrize("pooling", ["max", "flatten"])
def test_every_pooling_is_exported(workshop, tmp_path, pooling):
    shop = workshop()
    trained = model_of(shop, Head(shop.classes, pooling=pooling))
    trained.export("onnx", tmp_path / "m.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {"pixels": shop.pixels})
    assert_equal(found, trained.logits(shop.pixels))


def test_the_onnx_file_is_one_file_that_says_what_it_is(workshop, tmp_path, capfd, caplog):
    shop = workshop()
    metadata = metadata_of(shop)
    path = tmp_path / "model with spaces é.onnx"
    with caplog.at_level(logging.WARNING):
        model_of(shop).export("onnx", path, {**metadata, "more": "facts"})
    session = onnxruntime.InferenceSession(path)
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [24, 24, 3])
    assert (logits.name, logits.type, logits.shape[1:]) == ("logits", "tensor(float)", [3])
    assert isinstance(pixels.shape[0], str)
    assert session.get_modelmeta().custom_metadata_map == {**metadata, "more": "facts"}
    stored = onnx.load(path, load_external_data=False)
    assert {opset.version for opset in stored.opset_import if not opset.domain} == {export.OPSET}
    assert not any(tensor.external_data for tensor in stored.graph.initializer)
    assert path.stat().st_size > 4 * 400_000
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert not caplog.records


def test_dropout_is_off_in_exports(workshop, tmp_path):
    shop = workshop()
    trained = model_of(shop, Head(shop.classes, dropout=0.9))
    trained.program.train()
    with pytest.raises(ExportError, match="evaluation mode"):
        trained.export("onnx", tmp_path / "m.onnx", {})


def test_exporting_changes_nothing_in_the_model(workshop, tmp_path):
    shop = workshop()
    trained = model_of(shop)
    before = trained.logits(shop.pixels)
    layout = [parameter.stride() for parameter in trained.program.parameters()]
    for format, suffix in (("onnx", "onnx"), ("torch", "pt2"), ("safetensors", "safetensors")):
        trained.export(format, tmp_path / f"m.{suffix}", metadata_of(shop))
    assert np.array_equal(trained.logits(shop.pixels), before)
    assert [parameter.stride() for parameter in trained.program.parameters()] == layout


class Untraceable(torch.nn.Module):
    """Branches on values, which no exporter can follow."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_network_that_cannot_be_exported(workshop, tmp_path, format):
    shop = workshop()
    trained = model_of(shop)
    trained.program.backbone = torch.nn.Sequential(trained.program.backbone, Untraceable())
    with pytest.raises(ExportError, match=f"the {format} exporter cannot express this network"):
        trained.export(format, tmp_path / "m.bin", {})
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_folder_that_does_not_exist(workshop, tmp_path):
    trained = model_of(workshop())
    for format in ("onnx", "torch", "safetensors"):
        with pytest.raises(ExportError, match="choose a folder that exists"):
            trained.export(format, tmp_path / "nowhere" / "m", {})
