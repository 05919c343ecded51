"""One run of the benchmarks: how large, where its files lie, what its processes see."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from automl_tl.machine import available_cpus
from automl_tl.process_environment import WAITING
from benchmarks import data
from benchmarks.results import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("AUTOML_TL_SHARED") or ROOT.parent / "shared")
SIZES = ("full", "quick", "tiny")

T = TypeVar("T")
Size = Literal["full", "quick", "tiny"]


@dataclass(slots=True)
class Bench:
    """The circumstances of a run.

    Attributes:
        work: An empty folder for caches, studies and generated images.
        size: ``full`` measures, ``quick`` looks, ``tiny`` only shows that the code runs: on
            generated pictures and random weights.
        pairs: Interleaved repetitions of a pair.
        threads: Of the rivals; our command takes all CPUs by itself.
        budget: Seconds that a rival may take where a track searches freely.
        say: Told what is being measured.
    """

    work: Path
    size: Size = "full"
    pairs: int = 3
    threads: int = field(default_factory=available_cpus)
    budget: float = 1800.0
    say: Callable[[str], None] = print

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """Return what fits this run's size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    @property
    def weights(self) -> str:
        """The weights that networks start from: ``imagenet``, or ``none`` where that is enough."""
        return self.pick("imagenet", "imagenet", "none")

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.pick(160, 160, 32)

    @property
    def split(self) -> Path:
        """A CSV of the photographs with ``path,label,split``, as our split divides them."""
        table = self.work / "split.csv"
        if not table.exists():
            data.write_split(self.photos, table)
        return table

    @property
    def photos(self) -> Path:
        """A folder of photographs a class: flowers5, or generated pictures for a tiny run."""
        if self.size == "tiny":
            return self.generated("pictures", 60)
        folder = SHARED / "data" / "flowers5"
        if not folder.is_dir():
            raise BenchError(missing())
        return folder

    def generated(self, name: str, count: int) -> Path:
        """Return a folder of generated pictures in five classes, made on first use."""
        folder = self.work / "data" / f"{name}-{count}"
        if not folder.exists():
            data.pictures(folder, count)
        return folder

    def fresh(self, name: str) -> Path:
        """Return an empty folder; what was there before is deleted."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def environment(self, cache: Path) -> dict[str, str]:
        """Return what a measured process sees: a cache of its own and the shared weights.

        OpenMP's threads sleep soon while they wait, in everybody's process as in ours: where they
        spin and the machine is not quite idle, PyTorch's passes take five times as long, and that
        is not what is to be shown.
        """
        shared = {
            "TORCH_HOME": str(SHARED / "weights" / "torch_home"),
            "KERAS_HOME": str(SHARED / "weights" / "keras_home"),
        }
        quiet = {"NO_COLOR": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        return {**os.environ, **shared, **quiet, **WAITING, "AUTOML_TL_CACHE": str(cache)}


def missing() -> str:
    """Say that the photographs and weights are not there."""
    return (
        f"The photographs and weights are not there (looked in {SHARED}): put the folder `shared` "
        "beside the checkout or name it in AUTOML_TL_SHARED."
    )
