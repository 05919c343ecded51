"""What a track measured: figures, tables, sentences; all of it JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.bench import Bench


class BenchError(Exception):
    """A track cannot be measured; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a track is to show.

    Attributes:
        what: The figure.
        unit: Of the figure.
        at_least: The figure that must be reached.
        aim: The figure that is hoped for; None when there is none beyond.
        better: Whether more or less is better.
    """

    what: str
    unit: str
    at_least: float
    aim: float | None = None
    better: Literal["more", "less"] = "more"


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured figure.

    Attributes:
        what: The ``Target.what`` that it answers.
        value: The median; None when it could not be measured.
        low: The lowest of the repetitions.
        high: The highest.
        counts: Whether both sides were equally accurate; None where accuracy plays no part.
    """

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    counts: bool | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and numbers below column names."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(slots=True)
class Outcome:
    """All that a track found.

    Attributes:
        measures: The figures that have targets.
        tables: Where they come from.
        notes: Sentences: what ran, what was scaled and how.
    """

    measures: list[Measure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Track:
    """One question.

    Attributes:
        key: ``A1`` and so on.
        title: What is measured, against what.
        targets: What it is to show.
        run: Measures.
        photos: Whether it means something only with real photographs and pretrained weights.
    """

    key: str
    title: str
    targets: tuple[Target, ...]
    run: Callable[[Bench], Outcome]
    photos: bool = True


def measure(what: str, values: Sequence[float], counts: bool | None = None) -> Measure:
    """Return the median of repetitions, and their range."""
    return Measure(what, statistics.median(values), min(values), max(values), counts)


def ratios(rival: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times faster we were, for each interleaved pair."""
    return [theirs / mine for theirs, mine in zip(rival, ours, strict=True)]
