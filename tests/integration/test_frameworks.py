"""The shipped backbone is one network in two frameworks, each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import tiny
from automl_tl.host import BackendHost
from automl_tl.types import NetworkInfo, NetworkSpec, Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 32


class Quiet:
    """Progress that nobody watches."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def ask(
    backend: str, folder: Path, pixels: NDArray[np.uint8]
) -> tuple[NetworkInfo, NDArray[np.float32], NDArray[np.float32]]:
    """Return what a backend says of its tiny network, and images' pooled features and logits."""
    np.save(folder / "pixels.npy", pixels)
    out = folder / f"{backend}.npy"
    network = NetworkSpec(f"{backend}/tiny", SIZE, tiny.weights_path(), "shipped")
    with BackendHost(backend, device="cpu", threads=1) as host:
        info = host.describe(network)
        np.save(out, np.zeros((len(pixels), info.features), np.float32))
        source = Source(folder / "pixels.npy", cut=0)
        host.run(network, source, len(info.layers), "avg", out, Quiet())
        logits = host.classifier(network.backbone, network.weights).logits(pixels)
    return info, np.load(out), logits


def test_both_frameworks_see_the_same_in_an_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
    theirs, expected, torch_logits = ask("torch", tmp_path, pixels)
    ours, seen, keras_logits = ask("keras", tmp_path, pixels)

    assert ours.features == theirs.features == tiny.STAGES[-1]
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(seen, expected, atol=1e-4 * np.abs(expected).max())
    assert torch_logits.shape == (len(pixels), tiny.CLASSES)
    np.testing.assert_allclose(keras_logits, torch_logits, atol=1e-4 * np.abs(torch_logits).max())
    # Layers correspond by name, with their parameters; so do the cuts, channels last.
    weighted = {layer.name: layer.parameters for layer in ours.layers if layer.parameters}
    assert weighted == {
        layer.name.replace(".", "_"): layer.parameters
        for layer in theirs.layers
        if layer.parameters
    }
    cuts = {
        tuple(cut.shape[i] for i in (2, 0, 1)) for cut in ours.cuts[1:-1] if len(cut.shape) == 3
    }
    assert {cut.shape for cut in theirs.cuts[1:-1] if len(cut.shape) == 3} <= cuts
