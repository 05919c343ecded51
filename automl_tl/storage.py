"""Optuna's storage of a study, and what makes it survive a ``kill -9``.

By default that is Optuna's journal file in the study directory: of Optuna's local storages the one
with the smallest cost a trial (``docs/decisions.md``). In a database several searches share a
study.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from automl_tl.database_errors import not_opened, reason
from automl_tl.errors import StudyError
from automl_tl.facts import LOST, RETRY_OF, UNSPENT, facts_of, given_up
from automl_tl.indexed import IndexedStorage
from automl_tl.journal import Journal, check, damage
from automl_tl.ledger import Ledger
from automl_tl.owner import OWNER
from automl_tl.pruner import WorstThird
from automl_tl.sampler import SeededSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from automl_tl.database import Database

JOURNAL = "journal.log"


class Overtaken(StudyError):
    """Another machine has created the same study a moment ago."""


def open_storage(
    directory: Path,
    url: str | None,
    hurried: Callable[[], bool] | None = None,
    *,
    begun: bool = False,
) -> optuna.storages.BaseStorage:
    """Open a study's storage.

    Args:
        directory: The study directory.
        url: A database URL as Optuna takes it; None for the journal in the directory.
        hurried: See ``database.Database``.
        begun: See ``database.Database``.

    Raises:
        StudyError: When it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        check(directory / JOURNAL)
    try:
        if url is None:
            return IndexedStorage(Journal(directory / JOURNAL))
        from automl_tl.database import Database

        return Database(url, hurried, begun=begun)
    except Exception as error:  # SQLAlchemy's drivers raise whatever they like
        if url is None:
            journal = directory / JOURNAL
            why = f"The storage {journal} cannot be opened: {reason(error)}"
            raise StudyError(damage(journal) or why) from None
        raise StudyError(not_opened(error, url)) from None


def create_optuna(
    directory: Path, url: str | None, name: str, direction: str, *, again: bool = True
) -> optuna.Study:
    """Create the Optuna study of a new study; ``direction`` is ``minimize`` or ``maximize``.

    A creation that was killed half-way is simply done again, where ``again`` allows it.

    Raises:
        Overtaken: When the study is there and ``again`` is false.
        StudyError: When the storage cannot be used.
    """
    storage = open_storage(directory, url)
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction=StudyDirection[direction.upper()],
            load_if_exists=again,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise Overtaken(f"Another machine has just created the study {name!r}.") from None
    except Exception as error:  # see open_storage
        raise _failed(name, "written to", error) from None


def open_optuna(
    directory: Path,
    url: str | None,
    name: str,
    seed: int,
    hurried: Callable[[], bool] | None = None,
) -> optuna.Study:
    """Open the Optuna study, with our sampler and pruner; writes nothing.

    Raises:
        StudyError: When the storage cannot be used, or does not hold the study.
    """
    if url is None and not (directory / JOURNAL).exists():
        raise StudyError(f"The study {name!r} has lost its {JOURNAL} in {directory}: put it back.")
    if file := _missing(url):
        raise StudyError(f"The study {name!r} has lost its database {file}: put it back.")
    storage = open_storage(directory, url, hurried, begun=True)
    try:
        return optuna.load_study(
            storage=storage,
            study_name=name,
            sampler=SeededSampler(seed, _tuned, _from_activations),
            pruner=WorstThird(),
        )
    except KeyError:
        where = str(directory / JOURNAL) if url is None else "its storage"
        raise StudyError(
            f"The study {name!r} is not in {where}: was the file emptied or moved?"
        ) from None
    except Exception as error:  # see open_storage
        raise _failed(name, "read from", error) from None


def _tuned(trial: FrozenTrial) -> bool:
    facts = facts_of(trial)
    return "layers" in facts and facts["fine_tune_at"] < facts["layers"]


def _from_activations(trial: FrozenTrial) -> bool:
    return bool(facts_of(trial).get("tuned_from"))


def find_optuna(directory: Path, url: str, name: str) -> optuna.Study | None:
    """Return the study of this name in a database, None when it holds none.

    Raises:
        StudyError: When the database cannot be used.
    """
    if _missing(url):
        return None
    storage = open_storage(directory, url)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    except Exception as error:  # see open_storage
        raise _failed(name, "read from", error) from None


def ask(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial; whoever does must show that it is alive, see ``heart``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        return study.ask()


def reap(
    study: optuna.Study,
    reason: str,
    dead: Callable[[Mapping[str, Any] | None], bool],
    *,
    stopped: bool = False,
) -> list[tuple[int, bool]]:
    """Fail the trials whose owner is dead, and enqueue them again.

    Optuna does not do this for ask-and-tell: such trials would stay RUNNING for ever and, with
    constant liar, mislead the sampler.

    Args:
        study: The Optuna study.
        reason: What to record of them.
        dead: Whether an owner is; None stands for one that had not signed yet.
        stopped: As for ``fail``.

    Returns:
        Their numbers, and whether each will be tried again.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    gone = [trial for trial in running if dead(trial.user_attrs.get(OWNER))]
    ended = [fail(study, trial, reason, stopped=stopped) for trial in gone]
    return [(t.number, again) for t, again in zip(gone, ended, strict=True) if again is not None]


def fail(
    study: optuna.Study, trial: FrozenTrial, reason: str, *, stopped: bool = False
) -> bool | None:
    """Fail a trial that ended through no fault of its own, and enqueue it again.

    Of several that try, one succeeds. A kill between failing and enqueueing is made up for by
    ``enqueue_lost``.

    Args:
        study: The Optuna study.
        trial: One that runs.
        reason: What to record of it.
        stopped: Whether the search stopped it, which may happen as often as it likes; what died is
            tried again once.

    Returns:
        Whether it will be tried again; None when it is finished already.
    """
    spent = RETRY_OF in trial.user_attrs and not trial.user_attrs.get(UNSPENT)
    lost = {"reason": reason, "retried": stopped or not spent, UNSPENT: stopped and not spent}
    try:
        optuna.trial.Trial(study, trial._trial_id).set_user_attr(LOST, lost)
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return None
    failed = study.get_trials(deepcopy=False)[trial.number]  # with what the last who tried recorded
    again = given_up(failed)
    if again:
        _enqueue_again(study, failed)
    return again


def enqueue_lost(study: optuna.Study) -> None:
    """Enqueue the trials that were failed to be tried again and, because of a kill, never were."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        if given_up(trial) and trial.number not in retried:
            _enqueue_again(study, trial)


def database(study: optuna.Study) -> Database | None:
    """Return the database that holds a study, None when it is in a journal."""
    from automl_tl.database import Database

    inside = getattr(study._storage, "_backend", None)  # Optuna wraps it in a cache
    return inside if isinstance(inside, Database) else None


def stale(study: optuna.Study) -> set[int]:
    """Return the ids of trials whose signs of life ended too long ago; of a journal, none."""
    found = database(study)
    return found.stale(study._study_id) if found else set()


def heard(study: optuna.Study, trials: Iterable[FrozenTrial]) -> set[int]:
    """Return the ids of those trials that ever gave a sign of life; of a journal, none."""
    found = database(study)
    return found.heard([trial._trial_id for trial in trials]) if found else set()


def _enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    unspent = facts_of(trial).get(UNSPENT, False)
    study.enqueue_trial(params, user_attrs={RETRY_OF: trial.number, UNSPENT: unspent})


def best_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ``Ledger`` ranks, best first; of equal ones, the earlier."""
    ledger = Ledger(study)
    ledger.look()
    return ledger.best(len(ledger))


def sqlite_absolute(url: str | None) -> str | None:
    """Return a storage URL whose SQLite file is found from every folder."""
    prefix = "sqlite:///"
    if url is None or not url.startswith(prefix) or url == f"{prefix}:memory:":
        return url
    return prefix + os.path.abspath(url[len(prefix) :])


def _missing(url: str | None) -> Path | None:
    """Return the SQLite file of a URL if it is not there: SQLite makes one where it finds none."""
    if url is None or not url.startswith("sqlite"):
        return None
    from automl_tl.database import sqlite_file

    file = sqlite_file(url)
    return file if file and not file.is_file() else None


def _failed(name: str, done: str, error: Exception) -> StudyError:
    """Return what to tell of a study that could not be read or written."""
    if isinstance(error, StudyError):
        return error
    return StudyError(f"The study {name!r} cannot be {done} its storage: {reason(error)}")
