"""Optuna's storage of a study, and what makes it survive a ``kill -9``.

By default that is Optuna's journal file in the study directory: of Optuna's local storages the one
with the smallest cost a trial (``docs/decisions.md``).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from automl_tl.errors import StudyError
from automl_tl.indexed import IndexedStorage
from automl_tl.journal import Journal, damage
from automl_tl.sampler import SeededSampler

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
OWNER = "owner"
RETRY_OF = "retry_of"
FACTS = "facts"
"""The user attribute that holds what is recorded of a trial."""


def open_storage(directory: Path, url: str | None) -> optuna.storages.BaseStorage:
    """Open a study's storage.

    Args:
        directory: The study directory.
        url: A database URL as Optuna takes it; None for the journal in the directory.

    Raises:
        StudyError: When it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if url is None:
            return IndexedStorage(Journal(directory / JOURNAL))
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # SQLAlchemy's drivers raise whatever they like
        if url is None:
            journal = directory / JOURNAL
            reason = f"The storage {journal} cannot be opened: {_first_line(error)}"
            raise StudyError(damage(journal) or reason) from None
        where = url.split("@")[-1]
        raise StudyError(f"The storage {where} cannot be opened: {_first_line(error)}") from None


def create_optuna(directory: Path, url: str | None, name: str, direction: str) -> None:
    """Create the Optuna study of a new study; ``direction`` is ``minimize`` or ``maximize``.

    A creation that was killed half-way is simply done again.

    Raises:
        StudyError: When the storage cannot be used.
    """
    storage = open_storage(directory, url)
    try:
        optuna.create_study(
            storage=storage,
            study_name=name,
            direction=StudyDirection[direction.upper()],
            load_if_exists=True,
        )
    except Exception as error:  # see open_storage
        raise StudyError(
            f"The study {name!r} cannot be written to its storage: {_first_line(error)}"
        ) from None


def open_optuna(directory: Path, url: str | None, name: str, seed: int) -> optuna.Study:
    """Open the Optuna study, with our sampler and pruner; writes nothing.

    The pruner is Optuna's percentile rule: after five finished trials, a trial stops when its best
    figure so far is among the worst third of the others at the same epoch. The median rule (Vizier,
    Golovin et al., 2017) cut 15 of 20 trials of a study whose validation figures stood on 120
    images: noise, and a schedule that still had to fall.

    Raises:
        StudyError: When the storage cannot be used, or does not hold the study.
    """
    if url is None and not (directory / JOURNAL).exists():
        raise StudyError(f"The study {name!r} has lost its {JOURNAL} in {directory}: put it back.")
    storage = open_storage(directory, url)
    try:
        return optuna.load_study(
            storage=storage,
            study_name=name,
            sampler=SeededSampler(seed),
            pruner=optuna.pruners.PercentilePruner(66.0, n_startup_trials=5, n_min_trials=4),
        )
    except KeyError:
        where = str(directory / JOURNAL) if url is None else "its storage"
        raise StudyError(
            f"The study {name!r} is not in {where}: was the file emptied or moved?"
        ) from None
    except Exception as error:  # see open_storage
        raise StudyError(
            f"The study {name!r} cannot be read from its storage: {_first_line(error)}"
        ) from None


def check_new(directory: Path, url: str, name: str) -> None:
    """Check that a storage can be opened and holds no study of this name yet.

    Raises:
        StudyError: Otherwise.
    """
    storage = open_storage(directory, url)
    if name in optuna.get_all_study_names(storage):
        raise StudyError(
            f"The storage holds a study {name!r} already: choose another name with --study."
        )


def owner() -> dict[str, Any]:
    """Say who runs a trial: host, process id and the process's start time."""
    import psutil

    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": round(process.create_time(), 2),
    }


def alive(who: dict[str, Any]) -> bool:
    """Whether an owner still runs. One on another host counts as running."""
    import psutil

    if who.get("host") != socket.gethostname():
        return True
    try:
        started = float(psutil.Process(int(who["pid"])).create_time())
    except (psutil.Error, KeyError, ValueError):
        return False
    return abs(started - float(who.get("started", 0))) < 1


def reap(study: optuna.Study, reason: str, *, exclusive: bool) -> list[tuple[int, bool]]:
    """Fail the trials whose owner is dead; each is enqueued again once.

    Optuna does not do this for ask-and-tell: such trials would stay RUNNING for ever and, with
    constant liar, mislead the sampler.

    Args:
        study: The Optuna study.
        reason: What to record of them.
        exclusive: Nobody else can be running a trial, so all are dead, whatever they are signed
            with: the host may have another name since, or the kill came before the signature.

    Returns:
        Their numbers, and whether each will be tried again.
    """
    reaped = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        who = trial.user_attrs.get(OWNER)
        if not exclusive and (who is None or alive(who)):
            continue
        facts = {**trial.user_attrs.get(FACTS, {}), "reason": reason}
        reaped.append((trial.number, fail(study, trial, facts)))
    return reaped


def fail(study: optuna.Study, trial: FrozenTrial, facts: dict[str, Any]) -> bool:
    """Fail a trial that ended through no fault of its own, and enqueue it again, once.

    The order survives a kill: what is enqueued already is not enqueued a second time.

    Returns:
        Whether it will be tried again.
    """
    again = RETRY_OF not in trial.user_attrs
    retried = {t.user_attrs.get(RETRY_OF) for t in study.get_trials(deepcopy=False)}
    if again and trial.number not in retried:
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        study.enqueue_trial(params, user_attrs={RETRY_OF: trial.number})
    facts = {**facts, "retried": again}
    optuna.trial.Trial(study, trial._trial_id).set_user_attr(FACTS, facts)
    study.tell(trial.number, state=TrialState.FAIL)
    return again


def best_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the complete trials, best first; of equal ones, the earlier."""
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (sign * float(trial.values[0]), trial.number))


def tried(complete: Sequence[FrozenTrial]) -> int:
    """Count the trials that were really trained: without those that took over a twin's figures."""
    return sum("twin_of" not in trial.user_attrs[FACTS] for trial in complete)


def sqlite_absolute(url: str | None) -> str | None:
    """Return a storage URL whose SQLite file is found from every folder."""
    prefix = "sqlite:///"
    if url is None or not url.startswith(prefix) or url == f"{prefix}:memory:":
        return url
    return prefix + os.path.abspath(url[len(prefix) :])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
