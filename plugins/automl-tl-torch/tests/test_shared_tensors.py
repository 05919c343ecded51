"""Networks that have one tensor under several names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from automl_tl.errors import FinishTraining
from automl_tl.specs import Backbone
from automl_tl.types import PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SIZE = 12


class Normed(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu()


class Tied(nn.Module):
    """Two dense layers with one kernel; its branch cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 8:
            return x
        return self.b(self.a(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def sharing_norm() -> dict[str, nn.Module]:
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    return {"stem": nn.Conv2d(3, 8, 3, 2), "first": Normed(norm), "second": Normed(norm)}


def tied_weights() -> dict[str, nn.Module]:
    return {"stem": nn.Conv2d(3, 8, 3, 2), "tied": nn.Sequential(nn.Conv2d(8, 8, 1), Tied())}


CASES: Mapping[Callable[[], Any], tuple[str, str]] = {
    sharing_norm: ("backbone.first.norm.weight", "backbone.second.norm.weight"),
    tied_weights: ("backbone.tied.1.a.weight", "backbone.tied.1.b.weight"),
}


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def shop(request: pytest.FixtureRequest, workshop: Any) -> tuple[Any, tuple[str, str]]:
    make = request.param
    backbone = Backbone(
        make.__name__, "torch", lambda _: make(), input_size=SIZE, parameters=1, min_size=1
    )
    return workshop(backbone, SIZE), CASES[make]


def test_a_frozen_network_is_saved(shop: Any, tmp_path: Path) -> None:
    shop, _ = shop
    job = shop.job()
    trainer, _, seen = shop.train(job)
    trainer.save(tmp_path / "m.safetensors", shop.facts(job).metadata())
    logits = shop.backend.load(tmp_path / "m.safetensors").logits(shop.pixels)
    np.testing.assert_allclose(logits[shop.validation_rows], seen.logits[-1], atol=1e-5)


def test_a_stopped_trial_leaves_what_it_reported(shop: Any, tmp_path: Path, recorder: Any) -> None:
    shop, names = shop
    job = shop.tuning(0, 0, optimizer="sgd", fine_tuning=PhaseSpec(3, 0.1))
    steps = shop.train(shop.tuning(0, 0, fine_tuning=PhaseSpec(1, 0.1)))[2].steps
    stop = recorder(FinishTraining("enough"), steps=len(steps) + 2)
    trainer = shop.backend.trainer(job)
    with pytest.raises(FinishTraining):
        trainer.run(stop)
    assert [report.phase for report in stop.reports] == ["warm-up"] * 2 + ["fine-tuning"]
    path = tmp_path / "m.safetensors"
    trainer.save(path, shop.facts(job).metadata())
    first, second = (load_file(path)[name] for name in names)
    assert torch.equal(first, second)
    logits = shop.backend.load(path).logits(shop.pixels)
    np.testing.assert_allclose(logits[shop.validation_rows], stop.logits[-1], atol=1e-5)


def test_every_format_holds_them(shop: Any, tmp_path: Path) -> None:
    shop, _ = shop
    job = shop.job()
    trainer, _, _ = shop.train(job)
    metadata = shop.facts(job).metadata()
    trainer.save(tmp_path / "m.safetensors", metadata)
    model = shop.backend.load(tmp_path / "m.safetensors")
    expected = model.logits(shop.pixels)
    for format, suffix in (("torch", ".pt2"), ("safetensors", ".safetensors")):
        exported = tmp_path / f"exported{suffix}"
        model.export(format, exported, metadata)
        found = type(shop.backend)(lambda _: shop.backbone).load(exported)
        np.testing.assert_allclose(found.logits(shop.pixels), expected, atol=1e-5)
    model.export("onnx", tmp_path / "m.onnx", metadata)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (logits,) = session.run(None, {"pixels": shop.pixels})
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
