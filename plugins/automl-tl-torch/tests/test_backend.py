from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch

from automl_tl.augment import draw
from automl_tl.errors import FinishTraining, PluginError, TrialError, UsageError
from automl_tl.types import EpochReport, NetworkSpec, Source, View
from automl_tl_torch import augment, compute
from automl_tl_torch.backend import TorchBackend
from automl_tl_torch.catalog import torchvision_backbones

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.protocols import Backend

CATALOG = {backbone.key: backbone for backbone in torchvision_backbones()}
SPEC = NetworkSpec("torch/squeezenet1_1", 64, None, "random:0")
N = 11


class Steps:
    """Remembers progress; may raise after some images."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self.stop_at = stop_at

    def epoch(self, report: EpochReport) -> None:
        raise AssertionError

    def step(self, what: str, done: int, total: int) -> None:
        self.seen.append((what, done, total))
        if self.stop_at and done >= self.stop_at:
            raise FinishTraining


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(CATALOG.__getitem__)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", rng.integers(0, 256, (N, 64, 64, 3), dtype=np.uint8))
    return tmp_path / "pixels.npy"


@pytest.fixture(autouse=True)
def batches_of_four(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(compute._LARGEST_BATCH, "cpu", 4)
    yield


def run(
    backend: TorchBackend,
    source: Source,
    cut: int,
    pooling: Literal["avg", "max"] | None = None,
    progress: Any = None,
) -> NDArray[np.float32]:
    info = backend.describe(SPEC)
    shape = next(c.shape for c in info.cuts if c.index == cut)
    count = len(np.load(source.path, mmap_mode="r")) if source.rows is None else len(source.rows)
    out = source.path.with_name(f"out-{cut}-{pooling}.npy")
    np.save(out, np.zeros((count, *((info.features,) if pooling else shape)), np.float32))
    backend.run(SPEC, source, cut, pooling, out, progress or Steps())
    return np.load(out)


def last(backend: TorchBackend) -> int:
    return len(backend.describe(SPEC).layers)


def test_it_is_a_backend() -> None:
    backend: Backend = TorchBackend()
    assert backend.devices()[-1] == "cpu"


def test_run_computes_the_network_in_the_order_of_rows(backend: TorchBackend, pixels: Path) -> None:
    rows = np.array([7, 0, 3, 3, 10, 2])
    steps = Steps()
    actual = run(backend, Source(pixels, 0, rows=rows), last(backend), progress=steps)
    forward = backend._build(SPEC).segment(0, last(backend))
    with torch.inference_mode():
        expected = forward(torch.from_numpy(np.load(pixels)[rows])).numpy()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    assert steps.seen == [("prefix torch/squeezenet1_1", done, 6) for done in (0, 4, 6)]


def test_a_deeper_cut_derives_from_a_stored_one(backend: TorchBackend, pixels: Path) -> None:
    cuts = [cut.index for cut in backend.describe(SPEC).cuts]
    middle = cuts[len(cuts) // 2]
    direct = run(backend, Source(pixels, 0), last(backend))
    run(backend, Source(pixels, 0), middle)
    stored = pixels.with_name(f"out-{middle}-None.npy")
    before = stored.read_bytes()
    derived = run(backend, Source(stored, middle), last(backend))
    assert np.abs(direct - derived).max() <= 1e-5 * np.abs(direct).max()
    assert stored.read_bytes() == before
    assert np.abs(direct).max() > 0


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_from_pixels_and_from_the_last_map(
    backend: TorchBackend, pixels: Path, pooling: Literal["avg", "max"]
) -> None:
    maps = run(backend, Source(pixels, 0), last(backend))
    expected = maps.mean((2, 3)) if pooling == "avg" else maps.max((2, 3))
    pooled = run(backend, Source(pixels, 0), last(backend), pooling)
    assert np.abs(pooled - expected).max() <= 1e-5 * np.abs(expected).max()
    stored = pixels.with_name(f"out-{last(backend)}-None.npy")
    derived = run(backend, Source(stored, last(backend)), last(backend), pooling)
    assert np.abs(derived - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_view_is_keyed_by_position_in_rows(backend: TorchBackend, pixels: Path) -> None:
    rows, view = np.array([5, 1, 9, 5, 0, 2, 4]), View(1.0, seed=2, index=3)
    actual = run(backend, Source(pixels, 0, rows=rows, view=view), last(backend), "avg")
    images = augment.apply(torch.from_numpy(np.load(pixels)[rows]), draw(view, len(rows)))
    with torch.inference_mode():
        maps = backend._build(SPEC).segment(0, last(backend))(images)
    expected = maps.mean((2, 3)).numpy()
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert not np.allclose(actual[0], actual[3]), "the same image, drawn twice"


def test_stopping_passes_through(backend: TorchBackend, pixels: Path) -> None:
    with pytest.raises(FinishTraining):
        run(backend, Source(pixels, 0), last(backend), "avg", Steps(stop_at=8))


def test_out_of_memory_halves_the_batch(
    backend: TorchBackend, pixels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(backend, Source(pixels, 0), last(backend), "avg")
    forward = compute._forward
    sizes = []

    def small_memory(network: Any, segment: Any, batch: Any, drawn: Any) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise torch.cuda.OutOfMemoryError
        return forward(network, segment, batch, drawn)

    monkeypatch.setattr(compute, "_forward", small_memory)
    limit = 1
    actual = run(backend, Source(pixels, 0), last(backend), "avg")
    assert sizes[:4] == [4, 2, 1, 1]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    limit = 0
    with pytest.raises(TrialError, match="not even one image"):
        run(backend, Source(pixels, 0), last(backend), "avg")


@pytest.mark.parametrize("wrong", ["pooled source", "downwards", "pooled in the middle"])
def test_arguments_that_do_not_go_together(backend: TorchBackend, pixels: Path, wrong: str) -> None:
    end = last(backend)
    source = Source(pixels, 0 if "middle" in wrong else end, "avg" if "source" in wrong else None)
    with pytest.raises(PluginError, match="torch/squeezenet1_1: expected to compute"):
        backend.run(SPEC, source, 4, "avg" if "middle" in wrong else None, pixels, Steps())


def test_the_network_is_built_once_a_spec(backend: TorchBackend) -> None:
    built = backend._build(SPEC)
    assert backend._build(NetworkSpec("torch/squeezenet1_1", 64, None, "random:0")) is built
    other = NetworkSpec("torch/squeezenet1_1", 64, None, "random:1", 1)
    assert backend._build(other) is not built


def test_devices_are_checked() -> None:
    backend = TorchBackend(CATALOG.__getitem__)
    threads = torch.get_num_threads()
    try:
        assert backend.configure("auto", 1) == backend.devices()[0]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(UsageError, match=r"--device cuda:99: expected auto or one of .*cpu"):
        backend.configure("cuda:99", 0)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(backend: TorchBackend, pixels: Path) -> None:
    expected = run(backend, Source(pixels, 0), last(backend))
    cuda = TorchBackend(CATALOG.__getitem__)
    assert cuda.configure("cuda:0", 0) == "cuda:0"
    actual = run(cuda, Source(pixels, 0), last(cuda))
    # TF32 would be off by about 1e-3.
    assert np.abs(actual - expected).max() <= 5e-5 * np.abs(expected).max()
