"""Weights and exported files from a stranger, through the frameworks that read them.

Each reader runs in a process of its own, as in the product: a parser in C++ that crashes costs one
call, and is counted, not forbidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from automl_tl.errors import AutoMLError, BackendDied, TrialError
from automl_tl.host import BackendHost
from automl_tl.identify import identify
from automl_tl.types import Head, NetworkSpec
from tests.fuzz.mutations import fuzzed, mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fuzz.conftest import Fresh

pytestmark = pytest.mark.slow

NETWORKS = {"torch": "torch/tiny", "keras": "keras/tiny"}
WEIGHED = {"torch": "torch/squeezenet1_1", "keras": "keras/tiny"}
SIZE = 32


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def host(request: pytest.FixtureRequest) -> Iterator[BackendHost]:
    with BackendHost(request.param, "cpu", 1) as started:
        yield started


def _spec(
    host: BackendHost, weights: Path | None, networks: dict[str, str] = NETWORKS
) -> NetworkSpec:
    return NetworkSpec(networks[host.name], SIZE, weights, str(weights))


def _checkpoints(host: BackendHost, folder: Path) -> list[bytes]:
    """Return weights files of every kind that the framework reads."""
    if host.name == "torch":
        import torch
        import torchvision
        from safetensors.torch import save_file

        state = torchvision.models.squeezenet1_1().state_dict()
        torch.save(state, folder / "w.pth")
        torch.save({"state_dict": state}, folder / "w.pt", _use_new_zipfile_serialization=False)
        save_file(state, folder / "w.safetensors")
    else:
        from automl_tl import tiny

        (folder / "w.safetensors").write_bytes(
            (Path(tiny.__file__).parent / "weights.safetensors").read_bytes()
        )
        import h5py

        with h5py.File(folder / "w.h5", "w") as file:
            file.attrs["layer_names"] = [b"a"]
            layer = file.create_group("a")
            layer.attrs["weight_names"] = [b"a/kernel"]
            layer.create_dataset("a/kernel", data=np.zeros((3, 3), np.float32))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def _models(host: BackendHost, folder: Path) -> list[bytes]:
    """Return exported model files of every kind that is one file."""
    head = Head(classes=2)
    with BackendHost(host.name, "cpu", 1) as writer:  # what one wrote itself it believes
        network = _spec(host, None)
        features = writer.describe(network).features
        weights = [np.zeros((features, 2), np.float32), np.zeros(2, np.float32)]
        made = folder / "model.safetensors"
        metadata = _metadata(host, head, features)
        writer.assemble(network, head, weights, made, metadata)
        model = writer.load(made)
        model.logits(np.zeros((2, SIZE, SIZE, 3), np.uint8))
        for kind in {"torch": ("onnx", "torch"), "keras": ("keras",)}[host.name]:
            model.export(kind, folder / f"m.{kind}", metadata)
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


def _metadata(host: BackendHost, head: Head, features: int) -> dict[str, str]:
    from automl_tl.modelfile import ModelFacts

    facts = ModelFacts(NETWORKS[host.name], SIZE, "squash", ("a", "b"), head, features)
    return dict(facts.metadata())


def _tried(reader: Callable[[], object]) -> None:
    try:
        reader()
    except BackendDied as error:
        print(f"crashed: {error}")
    except TrialError as error:
        pytest.fail(f"not refused but broken: {error}")
    except AutoMLError as error:
        assert str(error).strip() and "\n" not in str(error)


def test_a_weights_file(host: BackendHost, fresh: Fresh) -> None:
    originals = _checkpoints(host, fresh())

    @settings(fuzzed, suppress_health_check=list(HealthCheck))
    @given(data=mutated(originals))
    def try_one(data: bytes) -> None:
        path = fresh() / "weights"
        path.write_bytes(data)
        _tried(lambda: host.describe(_spec(host, path, WEIGHED)))

    try_one()


def test_a_model_file(host: BackendHost, fresh: Fresh) -> None:
    originals = _models(host, fresh())

    @settings(fuzzed, suppress_health_check=list(HealthCheck))
    @given(data=mutated(originals))
    def try_one(data: bytes) -> None:
        path = fresh() / "model"
        path.write_bytes(data)

        def read() -> None:
            identify(path)
            host.load(path).logits(np.zeros((2, SIZE, SIZE, 3), np.uint8))

        _tried(read)

    try_one()
