"""What holds on whichever framework Keras runs; ``test_in_own_process`` runs it on several."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import load_file

from automl_tl.errors import FinishTraining, TrialError
from automl_tl.specs import Backbone
from automl_tl.types import Head, PhaseSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 16
ALONE = {"head": Head(3), "warmup": PhaseSpec(0, 1e-2), "schedule": "constant"}


def dropping(_weights: Path | None) -> keras.Model:
    """A network that draws random numbers in three ways while it trains."""
    images = keras.Input((None, None, 3))
    x = layers.Dropout(0.3)(layers.Conv2D(8, 3, strides=2)(images))
    x = layers.SpatialDropout2D(0.3)(layers.GaussianNoise(0.1)(x))
    return keras.Model(images, layers.Conv2D(8, 3)(x))


def spectral(_weights: Path | None) -> keras.Model:
    """A network with a state that no optimizer moves."""
    images = keras.Input((None, None, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(images))
    x = layers.SpectralNormalization(layers.Conv2D(8, 3), name="spectral")(x)
    return keras.Model(images, layers.ReLU()(x))


def made(load: Any) -> Backbone:
    return Backbone(load.__name__, "keras", load, input_size=SIZE, parameters=1, min_size=8)


def tuning(shop: Any, **changes: Any) -> Any:
    """A job that trains all layers from the pixels, from the start."""
    return shop.tuning(0, 0, **(ALONE | changes))


def tensors(shop: Any) -> dict[str, NDArray[Any]]:
    network = shop.backend._build(shop.spec)
    return {
        name: np.array(keras.ops.convert_to_numpy(variable))
        for name, variable in network.tensors().items()
    }


def test_the_same_job_repeats_its_numbers(workshop: Any) -> None:
    shop = workshop(made(dropping), SIZE)
    torch = sys.modules.get("torch")
    before = torch.get_rng_state() if torch else None
    first, again, other = (shop.train(tuning(shop, seed=seed))[2].logits for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch is None or torch.equal(before, torch.get_rng_state())


def test_states_are_those_of_the_last_report_and_put_back(
    workshop: Any, recorder: Any, tmp_path: Path
) -> None:
    shop = workshop(made(spectral), SIZE)
    before = tensors(shop)
    files = []
    for number, when in enumerate(({"epochs": 2}, {"steps": 12})):
        job = tuning(shop, fine_tuning=PhaseSpec(3, 1e-2))
        trainer, seen = shop.backend.trainer(job), recorder(FinishTraining("stop"), **when)
        with pytest.raises(FinishTraining):
            trainer.run(seen)
        assert len(seen.reports) == 2
        assert all(np.array_equal(value, before[name]) for name, value in tensors(shop).items())
        path = tmp_path / f"{number}.safetensors"
        trainer.save(path, shop.facts(job).metadata())
        files.append(load_file(path))
    at_report, later = files
    assert at_report.keys() == later.keys()
    for name, value in at_report.items():
        np.testing.assert_array_equal(value, later[name], err_msg=name)
    if keras.config.backend() != "jax":  # there a state stays as it was
        moved = at_report["backbone.spectral/vector_u"]
        assert not np.array_equal(moved, before["spectral/vector_u"])


class OutOfMemoryError(RuntimeError):
    """Called as PyTorch's."""


def test_an_update_that_runs_out_of_memory_is_not_tried_again(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, calls = workshop(made(spectral), SIZE), []
    update = shop.backend._stepper.update

    def fail(rate: float) -> None:
        calls.append(rate)
        update(rate)
        raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(shop.backend._stepper, "update", fail)
    with pytest.raises(TrialError, match="out of memory on cpu"):
        shop.train(tuning(shop))
    assert len(calls) == 1
