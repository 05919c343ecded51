"""The backend in its own process, with the real PyTorch plugin."""

from __future__ import annotations

import json
import math
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from automl_tl.cache import activations as stored
from automl_tl.cache.activations import Activations, Reuse
from automl_tl.cache.store import Store
from automl_tl.errors import BackendDied, FinishTraining, TrialError, UsageError
from automl_tl.host import BackendHost
from automl_tl.modelfile import ModelFacts
from automl_tl.networks import describe, network_spec
from automl_tl.planner import Tap
from automl_tl.plugins import get_plugins
from automl_tl.types import Head, NetworkInfo, NetworkSpec, PhaseSpec, Source, TrainJob, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from automl_tl.types import EpochReport


class Recorder:
    """Keeps promises and collects reports; may stop."""

    def __init__(self, activations: Activations, stop_at: int | None = None) -> None:
        self.activations = activations
        self.reuse = Reuse()
        self.reports: list[EpochReport] = []
        self.steps: list[tuple[str, int, int]] = []
        self.stop_at = stop_at

    def need(self, source: Source) -> None:
        self.activations.ensure(source, self, self.reuse)

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)
        if len(self.reports) == self.stop_at:
            raise FinishTraining("enough")

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))


class Workshop:
    """A network, pixels, a cache and a host."""

    def __init__(self, folder: Path, host: BackendHost) -> None:
        self.host = host
        self.store = Store(folder / "cache")
        backbone = get_plugins().backbone("torch/tiny")
        assert backbone.pretrained is not None
        weights = str(backbone.pretrained.path())
        self.network: NetworkSpec = network_spec(backbone, weights, 32, 0, self.store)
        self.info: NetworkInfo = describe(self.network, host, self.store)
        self.pixels = folder / "pixels.npy"
        random = np.random.default_rng(0)
        np.save(self.pixels, random.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8))
        self.activations = self.open()

    def open(self) -> Activations:
        return Activations(
            self.store,
            self.host,
            self.network,
            self.info,
            self.pixels,
            "test-pixels",
            lambda path, step: None,
        )

    def job(self, cut: int, views: int = 0) -> TrainJob:
        rows = np.arange(60)
        train, validation = rows[:40], rows[40:]
        drawn = [View(0.5, 0, index) for index in range(views)] or [None]
        last = Tap(len(self.info.layers), "avg")
        return TrainJob(
            network=self.network,
            info=self.info,
            head=Head(classes=3),
            fine_tune_at=cut,
            warmup=PhaseSpec(1, 1e-2),
            fine_tuning=PhaseSpec(2, 1e-3),
            optimizer="adam",
            schedule="cosine",
            weight_decay=0.0,
            batch_size=16,
            label_smoothing=0.0,
            class_weights=None,
            seed=0,
            train_labels=rows[:40] % 3,
            head_train=self.activations.source(train, last),
            head_validation=self.activations.source(validation, last),
            tune_train=tuple(self.activations.source(train, Tap(cut), view) for view in drawn),
            tune_validation=self.activations.source(validation, Tap(cut)),
        )


def kill_framework() -> None:
    (child,) = [
        process
        for process in psutil.Process().children(recursive=True)
        if "automl_tl.hosted" in " ".join(process.cmdline())
    ]
    os.kill(child.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with BackendHost("torch", device="cpu", threads=1) as host:
        yield Workshop(tmp_path_factory.mktemp("host"), host)


def test_describe_is_asked_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the backend was asked again")

    monkeypatch.setattr(workshop.host, "describe", forbidden)
    again = describe(workshop.network, workshop.host, workshop.store)
    assert again == workshop.info
    assert again.cuts[0].shape == (32, 32, 3)
    assert again.cuts[-1].index == len(again.layers)


def test_sources_are_filled_when_their_epoch_begins(workshop: Workshop) -> None:
    cut = workshop.info.cuts[len(workshop.info.cuts) // 2].index
    job = workshop.job(cut, views=2)
    recorder = Recorder(workshop.activations, stop_at=2)
    trainer = workshop.host.trainer(job)
    with pytest.raises(FinishTraining, match="enough"):
        trainer.run(recorder)
    assert job.tune_train[0].path.exists()
    assert not job.tune_train[1].path.exists(), "a view was computed that no epoch saw"
    assert [report.phase for report in recorder.reports] == ["warm-up", "fine-tuning"]
    assert recorder.reports[-1].validation_logits.shape == (20, 3)


def test_what_fails_while_an_array_is_filled_is_the_reason(workshop: Workshop) -> None:
    """It ends the framework's process, in which the epoch waits; that is no death of its own."""

    class Failing(Recorder):
        def need(self, source: Source) -> None:
            if source.path == first.path:
                nowhere = first.path.parent / "nowhere" / "none.npy"
                pixels = Source(workshop.pixels, 0, None, np.arange(40))
                workshop.host.run(workshop.network, pixels, cut, None, nowhere, self)
            super().need(source)

    cut = workshop.info.cuts[3].index
    job = workshop.job(cut)
    (first,) = job.tune_train
    with pytest.raises(TrialError, match="No such file") as failed:
        workshop.host.trainer(job).run(Failing(workshop.activations))
    assert not isinstance(failed.value, BackendDied)
    workshop.host.trainer(job).run(Recorder(workshop.activations))


def test_a_deeper_cut_is_derived_from_a_stored_shallower_one(workshop: Workshop) -> None:
    shallow, deep = (workshop.info.cuts[i].index for i in (4, 9))
    rows = np.arange(10)
    activations = workshop.open()
    recorder = Recorder(activations)
    first = activations.source(rows, Tap(shallow))
    recorder.need(first)
    derived = activations.source(rows, Tap(deep))
    recorder.need(derived)
    flops = {cut.index: cut.flops for cut in workshop.info.cuts}
    done = [one["flops"] for one in recorder.reuse.passes]
    assert done == [flops[shallow] * 10, (flops[deep] - flops[shallow]) * 10]

    straight = Path(workshop.store.root) / "straight.npy"
    np.save(straight, np.zeros_like(np.load(derived.path)))
    pixels = Source(workshop.pixels, 0, None, rows)
    workshop.host.run(workshop.network, pixels, deep, None, straight, recorder)
    np.testing.assert_allclose(np.load(derived.path), np.load(straight), rtol=1e-4, atol=1e-5)


def test_half_precision_is_tried_stored_and_close(workshop: Workshop) -> None:
    cut = workshop.info.cuts[5].index
    rows = np.arange(20)
    recorder = Recorder(workshop.open())
    activations = recorder.activations
    assert activations.halves(rows, cut, recorder)
    (tried,) = (workshop.store.root / "halves").glob("*.json")
    assert 0 < json.loads(tried.read_text())["error"] < 1e-3
    taps = Tap(cut), Tap(cut, None, "float16")
    whole, half = (activations.source(rows, tap) for tap in taps)
    for source in (whole, half):
        recorder.need(source)
    exact, rounded = np.load(whole.path), np.load(half.path)
    assert (exact.dtype, rounded.dtype) == (np.float32, np.float16)
    assert 0 < np.linalg.norm(rounded - exact) < 1e-3 * np.linalg.norm(exact)
    assert [activations.share(rows, tap, [None]) for tap in (*taps, Tap(0))] == [1, 1, 0]
    speed = activations.forward_speed(whole)
    assert speed is not None
    assert math.log2(speed).is_integer()
    tried.write_text(json.dumps({"largest": 4e4, "error": 1e-4}))
    assert not activations.halves(rows, cut, recorder), "near the end of its range"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(30, 0), (40, 10), (50, 60), (60, 100)], 90 / 20),  # neither starting nor the first batch
        ([(30, 0), (40, 100)], 100 / 10),  # one batch
        ([(30, 0), (40, 90), (60, 100)], 100 / 30),  # most of them in the first one
        ([(40, 100)], 100 / 40),  # a backend that says only when it is done
        ([], 100 / 60),
    ],
)
def test_what_a_pass_takes_does_not_count_how_it_started(steps, expected, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(stored, "time", SimpleNamespace(monotonic=lambda: now))
    watch = stored._Watch(SimpleNamespace(step=lambda *_: None))
    for moment, done in steps:
        now = float(moment)
        watch.step("prefix", done, 100)
    now = 60.0
    assert watch.images_a_second(100) == pytest.approx(expected)


def test_reuse_counts_every_epoch_that_was_spared(workshop: Workshop) -> None:
    rows = np.arange(10, 20)
    activations = workshop.open()
    recorder = Recorder(activations)
    source = activations.source(rows, Tap(len(workshop.info.layers), "avg"))
    for _ in range(3):
        recorder.need(source)
        activations.read(source, recorder.reuse)
    assert len(recorder.reuse.passes) == 1
    assert (recorder.reuse.hits, recorder.reuse.images) == (0, 20)
    assert recorder.reuse.seconds > 0
    other = Recorder(workshop.open())
    again = other.activations.source(rows, Tap(len(workshop.info.layers), "avg"))
    other.need(again)
    other.activations.read(again, other.reuse)
    assert (len(other.reuse.passes), other.reuse.hits, other.reuse.images) == (0, 1, 10)


def test_a_stop_leaves_the_model_of_the_last_epoch(workshop: Workshop, tmp_path: Path) -> None:
    trainer = workshop.host.trainer(workshop.job(workshop.info.cuts[8].index))
    recorder = Recorder(workshop.activations, stop_at=2)
    with pytest.raises(FinishTraining):
        trainer.run(recorder)
    assert trainer.facts().trainable_parameters > 0
    trainer.save(tmp_path / "m.safetensors", {"automl_tl": "{}"})
    assert (tmp_path / "m.safetensors").stat().st_size > 100_000


def test_errors_cross_the_border_as_themselves(workshop: Workshop) -> None:
    with pytest.raises(UsageError, match="one of the devices of this machine"):
        workshop.host.configure("cuda:99", 1)
    assert workshop.host.configure("cpu", 1) == "cpu"
    with pytest.raises(TrialError, match="AttributeError"):
        workshop.host.call("no_such_method")


def test_a_replaced_trainer_says_so(workshop: Workshop) -> None:
    old = workshop.host.trainer(workshop.job(workshop.info.cuts[8].index))
    workshop.host.trainer(workshop.job(workshop.info.cuts[8].index))
    with pytest.raises(TrialError, match="replaced by a newer one"):
        old.facts()


def test_a_model_is_loaded_again_after_its_framework_died(
    workshop: Workshop, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    width = workshop.info.features
    weights = [np.ones((width, 2), np.float32), np.zeros(2, np.float32)]
    facts = ModelFacts("torch/tiny", 32, "squash", ("a", "b"), Head(2), len(workshop.info.layers))
    workshop.host.assemble(workshop.network, Head(2), weights, path, facts.metadata())
    images = np.load(workshop.pixels)[:3]
    model = workshop.host.load(path)
    plain = model.logits(images)
    model.calibrate(2.0)
    kill_framework()
    with suppress(BackendDied):  # the call that notices
        model.logits(images)
    np.testing.assert_allclose(model.logits(images), plain / 2, rtol=1e-5)


def test_a_killed_framework_is_an_error_and_comes_back(workshop: Workshop) -> None:
    assert workshop.host.devices()[-1] == "cpu"
    kill_framework()
    with pytest.raises(TrialError, match=r"The torch process died \(killed by SIGKILL\)"):
        workshop.host.devices()
    assert workshop.host.devices()[-1] == "cpu"
