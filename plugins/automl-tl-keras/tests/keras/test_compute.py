from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl_tl.augment import draw
from automl_tl.errors import PluginError, PruneTraining, TrialError
from automl_tl.specs import Backbone
from automl_tl.types import NetworkSpec, Source, View
from automl_tl_keras import augment, compute
from automl_tl_keras.network import Network, build

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE, IMAGES = 32, 11


class Steps:
    """A ``Progress`` that keeps what it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.error = error

    def step(self, what: str, done: int, total: int) -> None:
        self.told.append((what, done, total))
        if self.error:
            raise self.error


def load(path: Path | None) -> Any:
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(SIZE, SIZE, 3)
    )


@pytest.fixture(scope="module")
def network() -> Network:
    backbone = Backbone("mobile", "keras", load, input_size=SIZE, parameters=1)
    return build(NetworkSpec("keras/mobile", SIZE, None, "random:0"), backbone)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", images)
    return tmp_path / "pixels.npy"


def run(
    network: Network,
    source: Source,
    cut: int,
    pooling: Literal["avg", "max"] | None = None,
    progress: Steps | None = None,
) -> NDArray[np.float32]:
    """Fill a new file; NaN where nothing was written."""
    shape = next(c.shape for c in network.info.cuts if c.index == cut)
    rows = len(np.load(source.path) if source.rows is None else source.rows)
    out = source.path.parent / f"{cut}-{pooling}.npy"
    np.save(out, np.full((rows, *(shape[-1:] if pooling else shape)), np.nan, np.float32))
    compute.run(network, source, cut, pooling, out, progress or Steps())
    return np.asarray(np.load(out))


def close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return bool(np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max())


def test_pixels_become_the_tensors_at_a_cut_and_then_features(
    network: Network, pixels: Path
) -> None:
    images = np.load(pixels)
    middle = network.info.cuts[len(network.info.cuts) // 2].index
    last = len(network.info.layers)
    stored = run(network, Source(pixels, 0), middle)
    assert close(stored, network.segment(0, middle)(images).numpy())
    features = network.segment(0, last)(images).numpy()
    path = pixels.parent / f"{middle}-None.npy"
    assert close(run(network, Source(path, middle), last), features)
    assert close(run(network, Source(path, middle), last, "avg"), features.mean((1, 2)))
    assert close(run(network, Source(pixels, 0), last, "max"), features.max((1, 2)))


def test_rows_come_in_their_order(network: Network, pixels: Path) -> None:
    last = len(network.info.layers)
    everything = run(network, Source(pixels, 0), last, "avg")
    rows = np.array([7, 0, 0, 10], np.int64)
    assert close(run(network, Source(pixels, 0, rows=rows), last, "avg"), everything[rows])


def test_views_are_drawn_by_position(network: Network, pixels: Path) -> None:
    view = View(1.0, seed=1, index=2)
    rows = np.array([3, 3, 5], np.int64)
    actual = run(network, Source(pixels, 0, rows=rows, view=view), 1)
    augmented = augment.apply(np.load(pixels)[rows], draw(view, 3))
    expected = network.segment(0, 1)(augmented).numpy()
    assert np.abs(actual - expected).max() < 1e-4
    assert np.abs(actual[0] - actual[1]).max() > 0.1


def test_a_function_is_compiled_once(network: Network, pixels: Path) -> None:
    before = len(network.compiled)
    cut = network.info.cuts[3].index
    run(network, Source(pixels, 0), cut)
    function = list(network.compiled.values())[-1]
    run(network, Source(pixels, 0, rows=np.arange(3)), cut)
    assert len(network.compiled) == before + 1
    assert list(network.compiled.values())[-1] is function


def test_progress_is_told_and_may_stop(
    network: Network, pixels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compute._LARGEST_BATCH, "cpu", 4)
    steps = Steps()
    run(network, Source(pixels, 0), 1, progress=steps)
    assert steps.told == [("prefix keras/mobile", done, IMAGES) for done in (0, 4, 8, IMAGES)]
    with pytest.raises(PruneTraining):
        run(network, Source(pixels, 0), 1, progress=Steps(PruneTraining("enough")))


@pytest.mark.parametrize(("room", "told"), [(4, [0, 4, 8, 11]), (1, list(range(12)))])
def test_a_batch_that_does_not_fit_is_halved(
    network: Network, pixels: Path, monkeypatch: pytest.MonkeyPatch, room: int, told: list[int]
) -> None:
    limit(monkeypatch, room)
    steps = Steps()
    last = len(network.info.layers)
    actual = run(network, Source(pixels, 0), last, "avg", steps)
    assert [done for _, done, _ in steps.told] == told
    monkeypatch.undo()
    assert close(actual, run(network, Source(pixels, 0), last, "avg"))


def test_one_image_that_does_not_fit_fails_the_trial(
    network: Network, pixels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0)
    with pytest.raises(TrialError, match="not even one image of 32 pixels a side fits on cpu"):
        run(network, Source(pixels, 0), 1)


def limit(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Let the device run out of memory with more than ``room`` images."""
    compiled = compute._compiled

    def limited(*arguments: Any) -> Any:
        function = compiled(*arguments)

        def call(x: NDArray[Any], *views: Any) -> Any:
            if len(x) > room:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return function(x, *views)

        return call

    monkeypatch.setattr(compute, "_compiled", limited)
    monkeypatch.setitem(compute._LARGEST_BATCH, "cpu", 8)


def test_arguments_that_do_not_go_together(network: Network, pixels: Path) -> None:
    last = len(network.info.layers)
    for source, cut, pooling in (
        (Source(pixels, last, "avg"), last, None),
        (Source(pixels, 2), 1, None),
        (Source(pixels, 0), 1, "avg"),
    ):
        with pytest.raises(PluginError, match="from a stored tensor upwards"):
            compute.run(network, source, cut, pooling, pixels, Steps())
