"""What to store of a network for a trial, and from where to train it.

Storing activations at a cut is exact: the layers below are frozen, in inference mode, and see the
same pixels in every epoch of every trial. The planner decides where that pays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from automl_tl.units import format_bytes

if TYPE_CHECKING:
    from automl_tl.types import Cut, NetworkInfo

BYTES_PER_VALUE = 4


@dataclass(frozen=True, slots=True)
class Tap:
    """A place in a network whose values are stored.

    Attributes:
        cut: Index of the cut; 0 is the pixels, which are stored anyway.
        pooling: How the last cut's map is pooled before it is stored, None for not at all.
    """

    cut: int
    pooling: Literal["avg", "max"] | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a device is: constants, because a plan that follows a stop-watch repeats nothing.

    Attributes:
        flops: Multiply-adds a second of a forward pass.
        read: Bytes a second from the store, most of them cached by the operating system.
    """

    flops: float = 2e10
    read: float = 1e9


GPU_RATES = Rates(flops=5e12)


@dataclass(frozen=True, slots=True)
class Work:
    """The size of a trial.

    Attributes:
        train: Training images.
        validation: Validation images.
        fine_tune_at: ``layers[:fine_tune_at]`` stay frozen.
        pooling: Of the head.
        tune_epochs: Epochs of fine-tuning; 0 when the network stays frozen.
        augmented: Whether fine-tuning sees other pixels in every epoch.
    """

    train: int
    validation: int
    fine_tune_at: int
    pooling: Literal["avg", "max", "flatten"]
    tune_epochs: int
    augmented: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a trial trains from.

    Attributes:
        head: Source of phase 1.
        tune: Source of phase 2; None without one.
        views: Number of augmentation views, one an epoch; 0 without augmentation.
        why: One sentence.
    """

    head: Tap
    tune: Tap | None
    views: int
    why: str


def plan(info: NetworkInfo, work: Work, room: int, rates: Rates) -> Plan:
    """Decide the cheapest exact way to train.

    Args:
        info: The network.
        work: The trial.
        room: Bytes that one trial may store.
        rates: Speed of this machine.
    """
    images = work.train + work.validation
    head = _head_tap(info, work, room)
    if not work.tune_epochs:
        what = "pooled features" if head.pooling else "features" if head.cut else "pixels"
        return Plan(head, None, 0, f"head on stored {what}")
    views = work.tune_epochs if work.augmented else 0
    stored = work.train * max(1, views) + work.validation
    best: tuple[float, Cut] | None = None
    for cut in info.cuts:
        if not 0 < cut.index <= work.fine_tune_at:
            continue
        size = math.prod(cut.shape) * BYTES_PER_VALUE
        if size * stored > room:
            continue
        saved = images * (cut.flops / rates.flops - size / rates.read)
        if saved > 0 and (best is None or saved >= best[0]):
            best = saved, cut
    if best is None:
        return Plan(head, Tap(0), views, "fine-tuning from pixels")
    cut = best[1]
    size = math.prod(cut.shape) * BYTES_PER_VALUE * stored
    each = f", {views} views" if views else ""
    why = f"fine-tuning from activations at layer {cut.index} ({format_bytes(size)}{each})"
    return Plan(head, Tap(cut.index), views, why)


def _head_tap(info: NetworkInfo, work: Work, room: int) -> Tap:
    """Pooled features whenever the head pools them: nothing is smaller, and all are computed."""
    last = info.cuts[-1]
    if work.pooling != "flatten":
        return Tap(last.index, work.pooling)
    size = math.prod(last.shape) * BYTES_PER_VALUE * (work.train + work.validation)
    return Tap(last.index) if size <= room else Tap(0)
