"""Studies that were never searched: written as a worker would have, in a second."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from automl_tl import metrics, storage
from automl_tl.cache import pixels
from automl_tl.cache.store import Store
from automl_tl.facts import FACTS
from automl_tl.files import write_json
from automl_tl.owner import OWNER
from automl_tl.report.facts import gather
from automl_tl.report.images import Images
from automl_tl.report.write import write_report
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.summary import summarise

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SCRIPT = "<script>alert(1)</script>"
FILE = "a/</script><img src=x onerror=alert(2)>&lt;b&gt;.png"
CLASSES = ("daisy", SCRIPT, "tulips & <b>roses</b>")
BEGUN = datetime(2026, 11, 23, 12)
SIZE = 24

_DISTRIBUTIONS: dict[str, Any] = {
    "backbone": CategoricalDistribution(["torch/tiny", "keras/Other"]),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "epochs": IntDistribution(2, 9),
}


@dataclass
class Made:
    """A study on disk and everything that reads it."""

    directory: StudyDirectory
    data: StudyData
    store: Store
    seed: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def study(self) -> optuna.Study:
        config = self.directory.config
        return storage.open_optuna(self.directory.path, None, config.name, config.seed)

    def logits(self, split: str, right: float, scale: float = 4.0) -> NDArray[np.float32]:
        """Logits that are right on about a share of the images, and surely wrong on ``FILE``."""
        rows = self.data.rows(split)  # type: ignore[arg-type]
        labels = self.data.labels[rows]
        classes = len(self.data.classes)
        noise = self.seed.normal(0, 1, (len(labels), classes))
        wrong = self.seed.random(len(labels)) >= right
        named = np.where(wrong, (labels + 1) % classes, labels)
        noise[np.arange(len(labels)), named] += scale
        hostile = np.flatnonzero(rows == 9)
        noise[hostile, (labels[hostile] + 1) % classes] = 3 * scale
        return noise.astype(np.float32)

    def add(self, study: optuna.Study, logits: NDArray[np.float32] | None = None, **more: Any):
        """Add a trial, complete where it has logits, else pruned."""
        number = len(study.get_trials(deepcopy=False))
        params = {
            "backbone": ("torch/tiny", "keras/Other")[number % 2],
            "learning_rate": float(10 ** self.seed.uniform(-4, -1)),
            "optimizer": ("adam", "sgd")[number // 2 % 2],
            "epochs": 2 + number % 8,
        }
        begun = BEGUN + timedelta(seconds=20 * number)
        facts: dict[str, Any] = {
            "spec": {**params, **SPEC},
            "fine_tune_at": 6,
            "layers": 12,
            "duration_s": 18.0,
            "epochs": 4,
            "total_parameters": 1000,
            "trainable_parameters": 400,
            "device": "cpu",
            "notes": [],
            "stopped": None,
            **more,
        }
        state, values = TrialState.PRUNED, None
        if logits is not None:
            labels = self.data.labels[self.data.rows("validation")]
            state = TrialState.COMPLETE
            facts["validation"] = metrics.from_logits(logits, labels)
            values = [facts["validation"][self.directory.config.metric]]
            reuse = {"hits": 1, "images": 50, "seconds": 9.0, "slowest": 0.1}
            passes = [{"cut": 6, "images": 60, "flops": 1, "seconds": 3.0}]
            facts["reuse"] = {**reuse, "passes": passes}
            folder = self.directory.trial(number)
            folder.mkdir(parents=True)
            np.save(folder / "validation_logits.npy", logits)
            write_json(folder / "history.json", _history(values[0]))
        owner = {"host": "here", "pid": 7, "started": 1.0}
        trial = optuna.trial.create_trial(
            state=state,
            values=values,
            params=params,
            distributions=_DISTRIBUTIONS,
            user_attrs={FACTS: facts, OWNER: owner},
        )
        trial.datetime_start = begun
        trial.datetime_complete = begun + timedelta(seconds=18)
        study.add_trial(trial)

    def test(self, number: int, right: float) -> None:
        """Write the figures on the test split."""
        logits = self.logits("test", right)
        labels = self.data.labels[self.data.rows("test")]
        np.save(self.directory.trial(number) / "test_logits.npy", logits)
        correct = int((logits.argmax(axis=1) == labels).sum())
        figures = metrics.from_logits(logits, labels)
        interval = list(metrics.interval(correct, len(labels)))
        self.directory.write_result(
            {"trial": number, "test": {**figures, "interval": interval}, "evaluations": 1}
        )

    def facts(self) -> dict[str, Any]:
        images = Images(self.directory, self.data, self.store)
        study = self.study
        summary = summarise(self.directory, self.data, study)
        return gather(self.directory, self.data, study, summary, self.store, images)

    def report(self) -> Path:
        return write_report(self.directory, self.data, self.study, self.store)


SPEC: dict[str, Any] = {
    "image_size": None,
    "resize": "squash",
    "pooling": "avg",
    "head_units": [64],
    "dropout": 0.2,
    "depth": 0.5,
    "label_smoothing": 0.1,
}


def make(
    root: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    images: int = 30,
    metric: str = "accuracy",
    picture: bool = True,
) -> Made:
    """Write a study without a trial, ``images`` of each class."""
    total = images * len(classes)
    labels = np.arange(total) % len(classes)
    splits = tuple(
        ("train", "train", "train", "validation", "test")[i // len(classes) % 5]
        for i in range(total)
    )
    names = tuple(FILE if i == 9 else f"{classes[labels[i]]}/{i:05d}.png" for i in range(total))
    data = StudyData(
        classes=classes,
        names=names,
        labels=labels.astype(np.int64),
        splits=splits,  # type: ignore[arg-type]
        hashes=tuple(f"{i:064x}" for i in range(total)),
        dataset_hash="d" * 64,
        facts={"broken": [], "notes": [f"A note on {SCRIPT}."], "decoded": total},
    )
    path = root / "studies" / "made"
    config = Config("made", str(root / "gone"), ("torch/tiny",), {"torch/tiny": "none"}, {}, metric)
    path.mkdir(parents=True)
    storage.create_optuna(path, None, "made", metrics.DIRECTIONS[metric])
    store = Store(root / "cache")
    if picture:
        squares = np.random.default_rng(1).integers(0, 256, (total, SIZE, SIZE, 3), np.uint8)
        key = pixels.key(data.dataset_hash, SIZE, "squash")
        shape = squares.shape
        store.get(pixels.KIND, key, shape, "uint8", lambda file: np.save(file, squares))
    return Made(StudyDirectory.create(path, config, data), data, store)


def fill(made: Made, trials: int) -> Made:
    """Add complete trials of growing accuracy, every fifth pruned, and test the best."""
    study = made.study
    for number in range(trials):
        share = 0.5 + 0.4 * number / max(1, trials - 1)
        made.add(study, None if number % 5 == 4 else made.logits("validation", share))
    made.test(storage.best_trials(study)[0].number, 0.85)
    return made


def _history(value: float) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "phase": "warm-up" if epoch < 2 else "fine-tuning",
            "value": value * (epoch + 1) / 4,
            "train_loss": 1.0 / (epoch + 1),
            "learning_rate": 0.1,
            "seconds": 2.0,
        }
        for epoch in range(4)
    ]


@pytest.fixture
def empty(tmp_path: Path) -> Made:
    return make(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return fill(make(tmp_path_factory.mktemp("made")), 12)


@pytest.fixture(scope="session")
def page(made: Made) -> Path:
    return made.report()
