"""What only a CUDA device shows: precision, memory, and agreement with the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automl_tl.augment import draw
from automl_tl.types import Head, PhaseSpec, View
from automl_tl_torch import augment, precision
from automl_tl_torch.backend import TorchBackend
from automl_tl_torch.device import exact_float32

pytestmark = pytest.mark.gpu

MILD = {"warmup": PhaseSpec(2, 1e-3), "fine_tuning": PhaseSpec(3, 1e-4)}
EXACT = 1e-3
"""Of the largest logit, in float32: rounding, which five epochs of training let grow."""
MIXED = 0.05
"""Of an epoch's loss, in bfloat16, which rounds at 4e-3."""


@pytest.fixture
def float32(monkeypatch):
    """Train in full float32, so that what is left of a difference is a mistake."""
    monkeypatch.setattr(precision, "choose", lambda device: torch.float32)
    with exact_float32(torch.device("cuda")):
        yield


def on_cuda(shop):
    assert shop.backend.configure("cuda:0", 0) == "cuda:0"
    return shop


def close(found, expected, share):
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def alike(found, expected):
    losses = [one.train_loss for one in found.reports]
    assert losses == pytest.approx([one.train_loss for one in expected.reports], rel=MIXED)


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "convnext_tiny"])
def test_training_agrees_with_the_cpu(workshop, name, float32):
    shop = workshop(name, 24 if name == "tiny" else 64)
    # Adam makes a step of any gradient, however small, and so of rounding too. At ten times this
    # rate the CPU's own two ways to convolve differ by 0.7 % on MobileNetV2; at this one by 7e-6,
    # of logits that fine-tuning moves by 5 %.
    gentle = {"warmup": MILD["warmup"], "fine_tuning": PhaseSpec(3, 1e-5), "optimizer": "sgd"}
    job = shop.tuning(shop.cut(0.6), shop.cut(0.6), head=Head(3), **gentle)
    _, facts, expected = shop.train(job)
    assert (facts.device, facts.precision) == ("cpu", "float32")
    _, facts, found = on_cuda(shop).train(job)
    assert (facts.device, facts.precision) == ("cuda:0", "float32")
    close(found.logits, expected.logits, EXACT)


@pytest.mark.parametrize("name", ["mobilenet_v2", "convnext_tiny"])
def test_stored_activations_and_pixels_agree(workshop, name, float32):
    shop = on_cuda(workshop(name, 64))
    cut = shop.cut(0.6)
    _, _, found = shop.train(shop.tuning(cut, cut, head=Head(3), **MILD))
    _, _, expected = shop.train(shop.tuning(0, cut, head=Head(3), **MILD))
    close(found.logits, expected.logits, EXACT)


@pytest.mark.parametrize("name", ["mobilenet_v2", "convnext_tiny"])
def test_mixed_precision_is_what_layers_train_in(workshop, name):
    shop = workshop(name, 64)
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, head=Head(3), **MILD)
    _, _, expected = shop.train(job)
    _, facts, found = on_cuda(shop).train(job)
    assert facts.precision == "bfloat16" or torch.cuda.get_device_capability() < (8, 0)
    alike(found, expected)
    _, _, from_pixels = shop.train(shop.tuning(0, cut, head=Head(3), **MILD))
    alike(from_pixels, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_learns_in_mixed_precision(workshop, optimizer):
    shop = on_cuda(workshop("mobilenet_v2", 32))
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, optimizer=optimizer, fine_tuning=PhaseSpec(6, 3e-4))
    _, facts, recorder = shop.train(job)
    assert np.isfinite(recorder.logits).all()
    tuned = [one.train_loss for one in recorder.reports if one.phase == "fine-tuning"]
    assert tuned[-1] < tuned[0]
    assert not facts.notes


def test_old_devices_train_in_float16_with_a_scaled_loss(workshop, monkeypatch):
    monkeypatch.setattr(precision, "choose", lambda device: torch.float16)
    shop = on_cuda(workshop("mobilenet_v2", 32))
    cut = shop.cut(0.6)
    _, facts, recorder = shop.train(shop.tuning(cut, cut, fine_tuning=PhaseSpec(6, 3e-4)))
    assert facts.precision == "float16"
    tuned = [one.train_loss for one in recorder.reports if one.phase == "fine-tuning"]
    assert tuned[-1] < tuned[0]


def test_a_full_device_halves_the_batch(workshop):
    shop = on_cuda(workshop("mobilenet_v2", 224, images=96))
    job = shop.tuning(0, 0, head=Head(3), batch_size=64, **MILD)
    _, facts, expected = shop.train(job)
    assert not facts.notes
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.8 * 2**30 / total)
    try:
        _, facts, found = shop.train(job)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("out of memory: batch size 64 became" in note for note in facts.notes), facts.notes
    alike(found, expected)


def test_arrays_on_the_device_and_from_disk_train_to_the_same_numbers(workshop, monkeypatch):
    shop = on_cuda(workshop("mobilenet_v2", 64))
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, head=Head(3), **MILD)
    _, _, resident = shop.train(job)
    monkeypatch.setattr("automl_tl_torch.data.Feed._resident", lambda self, store: None)
    _, _, streamed = shop.train(job)
    close(streamed.logits, resident.logits, 1e-2)


def test_views_are_drawn_on_the_device_as_on_the_cpu(workshop):
    shop = on_cuda(workshop("mobilenet_v2", 64))
    parameters = draw(View(1.0, seed=1, index=0), len(shop.pixels))
    expected = augment.apply(torch.from_numpy(shop.pixels), parameters)
    found = augment.apply(torch.from_numpy(shop.pixels).cuda(), parameters).cpu()
    assert (found - expected).abs().max() < 0.5


def test_a_model_trained_on_cuda_opens_on_the_cpu(workshop, tmp_path):
    shop = on_cuda(workshop("mobilenet_v2", 64))
    cut = shop.cut(0.6)
    job = shop.tuning(cut, cut, **MILD)
    trainer, _, _ = shop.train(job)
    trainer.save(tmp_path / "model.safetensors", shop.facts(job).metadata())
    on_device = shop.backend.load(tmp_path / "model.safetensors").logits(shop.pixels)
    cpu = TorchBackend(lambda key: shop.backbone)
    cpu.configure("cpu", 0)
    model = cpu.load(tmp_path / "model.safetensors")
    close(model.logits(shop.pixels), on_device, 1e-3)
    metadata = shop.facts(job).metadata()
    model.export("onnx", tmp_path / "model.onnx", metadata)
    import onnxruntime

    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"pixels": shop.pixels})
    close(logits, on_device, 1e-3)
