"""What each worker of a search does, one row a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.cli import bars, words
from automl_tl.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from automl_tl.cli.state import Running, SearchState, Stage

PHASES = ("warm-up", "fine-tuning")


@dataclass(frozen=True, slots=True)
class Doing:
    """One row.

    Attributes:
        who: The worker and its trial, or how many it trains together.
        what: The work.
        done: How much of it.
        total: Of how much; 0 where nobody knows.
        facts: Amount, rate and estimate.
        plan: What the trial reads from the store; empty before it is planned.
    """

    who: str
    what: str
    done: float
    total: float
    facts: str
    plan: str = ""


def doing(state: SearchState, wide: bool) -> Iterator[Doing]:
    """Yield what the supervisor does, if anything, and what each busy worker does.

    Of trials that a worker trains together, the row tells how far the first is.

    Args:
        state: Of the search.
        wide: Whether there is room for rates and longer names.
    """
    now = state.clock()
    for (worker, _), stage in sorted(state.stages.items(), key=lambda item: item[1].started):
        if worker is None:
            yield _stage("", stage, wide, now)
    if state.study and not state.workers and not state.stopping:
        yield Doing("", "starting workers", 0, 0, "")
    several = len(state.workers) > 1
    for worker in sorted(state.workers):
        stages = [stage for (owner, _), stage in state.stages.items() if owner == worker]
        newest = max(stages, key=lambda stage: stage.started, default=None)
        own = [trial for trial in state.running.values() if trial.worker == worker]
        trial = max(own, key=lambda trial: trial.epoch.get("epoch", -1), default=None)
        names = [f"worker {worker}"] if several else []
        if trial and (wide or not several):
            names.append(f"trial {trial.number}" if len(own) == 1 else f"{len(own)} trials")
        who = ", ".join(names)
        if trial is None:
            if newest:
                yield _stage(who, newest, wide, now)
        elif newest is None or newest.what in PHASES:
            yield _training(who, trial, newest, wide, now)
        else:
            yield _stage(who, newest, wide, now, _plan(trial))


def _stage(who: str, stage: Stage, wide: bool, now: float, plan: str = "") -> Doing:
    what = stage.what
    if what.startswith("prefix "):
        what = "storing frozen layers" if wide else "storing layers"
    measure = (0, 0) if stage.unmeasured else (stage.done, stage.total)
    return Doing(who, what, *measure, bars.facts(stage, wide, now), plan)


def _training(who: str, trial: Running, stage: Stage | None, wide: bool, now: float) -> Doing:
    """Return a row that counts epochs, and the part of the one that runs."""
    epoch: dict[str, Any] = dict(trial.epoch)
    if not epoch and stage is None:
        return Doing(who, "starting", 0, 0, format_duration(now - trial.started), _plan(trial))
    begun = stage.done / stage.total if stage and stage.total else 0.0
    done, total = epoch.get("epoch", -1) + 1, epoch.get("epochs", 0)
    what = stage.what if stage else str(epoch["phase"])
    if not total:  # nobody has said yet how many epochs there are
        return Doing(who, what, begun, 1, "epoch 1", _plan(trial))
    parts = [f"epoch {min(done + 1, total) if stage else done}/{total}"]
    if stage and stage.rate and wide:
        parts.append(f"{stage.rate:.0f}/s")
    last = what == "fine-tuning" or words.depth(trial.facts) == "frozen"
    if last and epoch["phase"] == what and epoch.get("seconds"):
        parts.append(f"{format_duration((total - done - begun) * epoch['seconds'])} left")
    return Doing(who, what, done + begun, total, "  ".join(parts), _plan(trial))


def _plan(trial: Running) -> str:
    return str(trial.facts.get("plan") or "")
