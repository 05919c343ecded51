"""What to store of a network for a trial, and from where to train it.

Storing activations at a cut is exact: the layers below are frozen, in inference mode, and see the
same pixels in every epoch of every trial. The planner weighs what computing, storing and reading
cost at every cut, as Nautilus does (Kumar et al., SIGMOD 2022), and takes what costs least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from automl_tl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from automl_tl.types import Cut, NetworkInfo

    DType = Literal["float32", "float16"]

BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True)
class Tap:
    """A place in a network whose values are stored.

    Attributes:
        cut: Index of the cut; 0 is the pixels, which are stored anyway.
        pooling: How the last cut's map is pooled before it is stored, None for not at all.
        dtype: What the values are stored in; they are computed in float32.
    """

    cut: int
    pooling: Literal["avg", "max"] | None = None
    dtype: DType = "float32"


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast this machine is, rounded to powers of two, so that plans repeat.

    Attributes:
        forward: Multiply-adds a second of this network's forward pass on the device.
        memory: Bytes a second from RAM.
        read: Bytes a second from the cache's disk.
        write: Bytes a second to it.
    """

    forward: float
    memory: float = 2.0**33
    read: float = 2.0**29
    write: float = 2.0**28


@dataclass(frozen=True, slots=True)
class Work:
    """The size of a trial.

    Attributes:
        train: Training images.
        validation: Validation images.
        fine_tune_at: ``layers[:fine_tune_at]`` stay frozen.
        epochs: Of fine-tuning.
        augmented: Whether fine-tuning sees other pixels in every epoch.
    """

    train: int
    validation: int
    fine_tune_at: int
    epochs: int
    augmented: bool

    @property
    def views(self) -> int:
        """Views of every training image: one an epoch, so that none is passed off as another."""
        return self.epochs if self.augmented else 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trial may take.

    Attributes:
        room: Bytes of the cache.
        memory: Bytes of RAM in which an array is held; a larger one is read from disk.
    """

    room: int
    memory: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known beyond the trial.

    Attributes:
        stored: Share of the images whose values at a tap are stored already.
        later: How many later trials are expected to use a cut.
        price: Seconds that evicting other arrays for so many bytes would cost; infinity where too
            few can be evicted.
        halves: Whether float16 is exact enough at a cut; may compute a few images.
    """

    stored: Callable[[Tap], float] = lambda tap: 0.0
    later: Callable[[Cut], float] = lambda cut: 0.0
    price: Callable[[int], float] = lambda size: 0.0
    halves: Callable[[Cut], bool] = lambda cut: False


@dataclass(frozen=True, slots=True)
class Option:
    """One place to fine-tune from.

    Attributes:
        tap: Where.
        size: Bytes to store.
        fill: Seconds to compute and store what is missing.
        training: Seconds of all epochs spent below ``fine_tune_at`` and in reading.
        cost: Seconds that count: ``fill`` shared with later trials, ``training``, and what is
            evicted.
        note: Why it is out of the question; empty when it is not.
    """

    tap: Tap
    size: int
    fill: float
    training: float
    cost: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a trial trains from.

    Attributes:
        head: Source of phase 1.
        tune: Source of phase 2; None without one.
        views: Number of augmentation views, one an epoch; 0 without augmentation.
        why: One sentence.
        options: All that was weighed, the cheapest first.
    """

    head: Tap
    tune: Tap | None
    views: int
    why: str
    options: tuple[Option, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """Return what was weighed, the cheapest first, JSON-ready.

        Each has ``cut``, ``dtype``, ``bytes``, the seconds ``fill``, ``training`` and ``cost``,
        ``note`` and ``chosen``.
        """
        return [
            {
                "cut": option.tap.cut,
                "dtype": option.tap.dtype,
                "bytes": option.size,
                "fill": option.fill,
                "training": option.training,
                "cost": option.cost,
                "note": option.note,
                "chosen": option.tap == self.tune,
            }
            for option in self.options
        ]


def head_tap(
    info: NetworkInfo, pooling: Literal["avg", "max", "flatten"], images: int, room: int
) -> Tap:
    """Return where heads train from: pooled features whenever the head pools them.

    Nothing is smaller, and nothing is left to be computed. A head that flattens the map trains
    from it where it fits, else from the pixels.

    Args:
        info: The network.
        pooling: Of the head.
        images: Images to store.
        room: Bytes that may be stored.
    """
    last = info.cuts[-1]
    if pooling != "flatten":
        return Tap(last.index, pooling)
    return Tap(last.index) if _size(last, "float32") * images <= room else Tap(0)


def frozen_plan(head: Tap) -> Plan:
    """Return the plan of a trial whose network stays frozen."""
    what = "pooled features" if head.pooling else "features" if head.cut else "pixels"
    return Plan(head, None, 0, f"head on stored {what}")


def plan(
    info: NetworkInfo,
    work: Work,
    head: Tap,
    speeds: Speeds,
    limits: Limits,
    outlook: Outlook | None = None,
) -> Plan:
    """Decide from where a trial is fine-tuned.

    Args:
        info: The network.
        work: The trial.
        head: Where its head is warmed up from.
        speeds: Of this machine.
        limits: What the trial may take.
        outlook: What is known beyond the trial.
    """
    outlook = outlook or Outlook()
    options = sorted(
        _options(info, work, speeds, limits, outlook),
        key=lambda option: (bool(option.note), option.cost, -option.tap.cut),
    )
    views = work.epochs if work.augmented else 0
    pixels = next(option for option in options if option.tap.cut == 0)
    for option in options:
        if option.note:
            break
        cut = next(cut for cut in info.cuts if cut.index == option.tap.cut)
        if option.tap.dtype == "float16" and not outlook.halves(cut):
            continue
        return Plan(head, option.tap, views, _why(option, pixels, work), tuple(options))
    return Plan(head, Tap(0), views, _why(pixels, pixels, work), tuple(options))


def _options(
    info: NetworkInfo, work: Work, speeds: Speeds, limits: Limits, outlook: Outlook
) -> list[Option]:
    """Weigh the pixels and every cut at or below the first layer that trains."""
    flops = _flops_at(info, work.fine_tune_at)
    epochs, seen = work.epochs, work.train + work.validation
    pixels = epochs * seen * flops / speeds.forward
    found = [Option(Tap(0), 0, 0.0, pixels, pixels)]
    below = 0
    stored_images = work.train * work.views + work.validation
    for cut in info.cuts:
        if not 0 < cut.index <= work.fine_tune_at:
            continue
        fits = False
        for dtype in ("float32", "float16"):
            tap, each = Tap(cut.index, None, dtype), _size(cut, dtype)
            size = each * stored_images
            missing = 1 - outlook.stored(tap)
            held = each * work.train <= limits.memory
            reading = each / (speeds.memory if held else speeds.read)
            above = (flops - cut.flops) / speeds.forward
            training = epochs * seen * (reading + above)
            computing = stored_images * (cut.flops - below) / speeds.forward
            fill = missing * (computing + size / speeds.write)
            cost, note, price = training, "", 0.0
            if size * missing > limits.room:
                note = f"needs more than the {format_bytes(limits.room)} that a trial may store"
            elif fits:
                note = "float32 fits"
            elif missing:
                price = outlook.price(math.ceil(size * missing))
                note = "the cache is full of what is in use" if price == math.inf else ""
            if missing and not note:
                cost += fill / (1 + outlook.later(cut)) + price
            fits = held and not note
            found.append(Option(tap, size, fill, training, cost, note))
        if outlook.stored(Tap(cut.index)) == 1:
            below = cut.flops  # what lies deeper is computed from here
    return found


def _flops_at(info: NetworkInfo, index: int) -> int:
    """Return the multiply-adds below a layer: those of the nearest cut at or below it."""
    return max(cut.flops for cut in info.cuts if cut.index <= index)


def _size(cut: Cut, dtype: str) -> int:
    return math.prod(cut.shape) * BYTES[dtype]


def _why(option: Option, pixels: Option, work: Work) -> str:
    spared = format_duration(pixels.training)
    if option.tap.cut == 0:
        return f"fine-tuning from pixels: the layers below take {spared}, storing would take more"
    half = ", float16" if option.tap.dtype == "float16" else ""
    each = f", {work.epochs} views" if work.augmented else ""
    taken = format_duration(option.fill + option.training)
    there = ", stored already" if not option.fill else ""
    return (
        f"fine-tuning from activations at layer {option.tap.cut} ({format_bytes(option.size)}"
        f"{half}{each}{there}): about {taken} instead of {spared} in the layers below"
    )
