"""A study in a database, which several machines use and which may be away for a while.

Optuna's relational storage, with three things more: a call waits while the server does not answer;
a trial whose worker no longer shows signs of life is noticed, wherever that worker ran; and two
machines may create the tables at the same moment.
"""

from __future__ import annotations

import threading
import time
import warnings
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import column, make_url, select, table
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
)

from automl_tl.database_errors import place, reason
from automl_tl.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.trial import TrialState

BEAT_SECONDS = 10
"""How often a running trial shows that its worker lives."""
STALE_SECONDS = 90
"""How long it may be silent: longer than a database that is started again is away."""
PATIENCE_SECONDS = 120.0
"""How long a call waits for a database that does not answer."""
_T = TypeVar("_T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class Database(RDBStorage):
    """Optuna's storage in a relational database.

    Args:
        url: As Optuna takes it.
        hurried: Asked while a call waits: whether to give up at once. None: calls do not wait.
        begun: Whether a study is there, so that no tables are made where there are none.

    Raises:
        Exception: Whatever SQLAlchemy and its drivers raise when it cannot be opened.

    Every call raises ``StudyError`` when the database stays away, or refuses it.
    """

    def __init__(
        self, url: str, hurried: Callable[[], bool] | None = None, *, begun: bool = False
    ) -> None:
        self._hurried = hurried
        self._where = ""
        self._waiting = threading.local()
        sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {"pool_pre_ping": True}
        if url.startswith(("postgresql", "mysql", "mariadb")):
            options["connect_args"] = {"connect_timeout": 10}

        def open_() -> None:
            with warnings.catch_warnings():  # Optuna calls heartbeats an experiment since 2021
                warnings.simplefilter("ignore", ExperimentalWarning)
                super(Database, self).__init__(
                    url,
                    engine_kwargs={} if sqlite else options,
                    heartbeat_interval=BEAT_SECONDS,
                    grace_period=STALE_SECONDS,
                    skip_table_creation=begun,
                )

        self._patiently(lambda: _created_by_one(open_))
        self._where = place(url)

    def stale(self, study_id: int) -> set[int]:
        """Return the ids of running trials that fell silent too long ago, by the server's clock."""
        return set(self._patiently(lambda: self._get_stale_trial_ids(study_id)))

    def heard(self, trials: Sequence[int]) -> set[int]:
        """Return which of these trials, by their ids, ever gave a sign of life.

        Optuna never calls those stale that did not.
        """
        signs = table("trial_heartbeats", column("trial_id"))
        asked = select(signs.c.trial_id).where(signs.c.trial_id.in_(trials))

        def call() -> set[int]:
            with self.engine.connect() as connection:
                return {row[0] for row in connection.execute(asked)}

        return self._patiently(call)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See Optuna. An answer that was lost on its way does not make it fail."""
        tries = 0

        def call() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(Database, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self.get_trial(trial_id).state == state:
                    return True
                raise

        return self._patiently(call)

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, again and again while the database is away.

        Raises:
            StudyError: When it stays away, or refuses the call; what the driver raises when it
                cannot be opened.
        """
        if getattr(self._waiting, "inside", False):
            return call()
        end = time.monotonic() + PATIENCE_SECONDS
        pause = _FIRST_PAUSE
        self._waiting.inside = True
        try:
            while True:
                try:
                    return call()
                except (StorageInternalError, DBAPIError) as error:
                    if not _away(error) or self._impatient() or time.monotonic() > end:
                        if not self._where or not _from_driver(error):
                            raise
                        raise StudyError(
                            f"The storage {self._where} cannot be used: {reason(error)}"
                        ) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._waiting.inside = False

    def _impatient(self) -> bool:
        return self._hurried is None or self._hurried()


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Database, *args: Any, **kwargs: Any) -> Any:
        return self._patiently(lambda: method(self, *args, **kwargs))

    return call


_BENEATH = {"_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param"}
"""What Optuna's cache, which it puts before a database, calls besides the public methods."""
_METHODS = {*BaseStorage.__abstractmethods__, *_BENEATH, "record_heartbeat"}
for _name in _METHODS - set(vars(Database)):
    setattr(Database, _name, _patient(getattr(RDBStorage, _name)))


def sqlite_file(url: str) -> Path | None:
    """Return the file that a storage URL names, None when it names a server or memory."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return None
    name = parts.database if parts.get_backend_name() == "sqlite" else None
    if name and parts.query.get("uri"):
        name = unquote(urlsplit(name).path)
    return Path(name) if name and name != ":memory:" else None


def _away(error: BaseException) -> bool:
    """Whether the database does not answer, or is busy, rather than refusing what it was asked."""
    cause = _from_driver(error)
    if "no such table" in str(cause):  # which SQLite calls an OperationalError too
        return False
    return bool(cause and (cause.connection_invalidated or isinstance(cause, OperationalError)))


def _from_driver(error: BaseException) -> DBAPIError | None:
    """Return what SQLAlchemy made of the driver's error, if it is one."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return cause if isinstance(cause, DBAPIError) else None


def _created_by_one(open_: Callable[[], None]) -> None:
    """Open a storage; the loser of a race to create its tables finds them the next time."""
    for _ in range(5):
        try:
            return open_()
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
        time.sleep(0.5)
    return open_()
