"""A study's database: it may be away for a while, and dead trials are noticed from elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from automl_tl import database, owner, sharing, storage
from automl_tl.database import Database
from automl_tl.errors import StudyError
from automl_tl.heart import Heart
from automl_tl.sharing import Sharing
from tests.postgres import postgres

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

__all__ = ["postgres"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def _study(url: str, hurried=lambda: False) -> optuna.Study:
    found = storage.open_storage(None, url, hurried)
    return optuna.create_study(storage=found, study_name="s", load_if_exists=True)


def test_a_call_waits_while_the_database_is_away(postgres: Server) -> None:
    study = _study(postgres.url)
    trial = storage.ask(study)
    trial.suggest_float("x", 0, 1)
    postgres.stop()
    threading.Timer(1.5, postgres.start).start()
    before = time.monotonic()
    study.tell(trial, 0.5)
    assert time.monotonic() - before > 1
    assert [t.state for t in _study(postgres.url).trials] == [TrialState.COMPLETE]
    study.ask().report(0.1, 0)


def test_who_is_in_a_hurry_does_not_wait(postgres: Server) -> None:
    study = _study(postgres.url, hurried=lambda: True)
    postgres.stop()
    try:
        with pytest.raises(StorageInternalError):
            storage.ask(study)
        with pytest.raises(StudyError, match=r"The storage 127\.0\.0\.1:\d+/postgres cannot be op"):
            storage.open_storage(None, postgres.url)
    finally:
        postgres.start()


def test_waiting_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.3)
    study = _study(url)
    calls = []

    def away(*_: object) -> None:
        calls.append(0)
        raise StorageInternalError from optuna_operational()

    def optuna_operational() -> Exception:
        from sqlalchemy.exc import OperationalError

        return OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    found = storage.database(study)
    assert found is not None
    with pytest.raises(StorageInternalError):
        found._patiently(away)
    assert len(calls) > 1
    with pytest.raises(ZeroDivisionError):
        found._patiently(lambda: 1 // 0)


def test_an_answer_that_was_lost_does_not_fail_the_trial(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(url)
    trial = storage.ask(study)
    told = optuna.storages.RDBStorage.set_trial_state_values
    from sqlalchemy.exc import OperationalError

    def tell_and_lose(self, *arguments, lost=[]) -> bool:  # noqa: B006
        done = told(self, *arguments)
        if not lost:
            lost.append(1)
            raise OperationalError("COMMIT", {}, Exception("server closed the connection"))
        return done

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", tell_and_lose)
    study.tell(trial, 0.5)
    assert study.trials[0].value == 0.5
    with pytest.raises(UpdateFinishedTrialError):
        trial.report(0.1, 3)


def test_a_silent_trial_is_failed_and_tried_again_and_one_with_a_heart_is_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BEAT_SECONDS", 1)
    monkeypatch.setattr(database, "STALE_SECONDS", 2)
    elsewhere = _study(url)
    here = Sharing(_study(url), "here", shared=True)
    heart = Heart(elsewhere)
    trials = [storage.ask(elsewhere) for _ in range(2)]
    for trial in trials:
        trial.set_user_attr(owner.OWNER, {**owner.sign("elsewhere", 0), "host": "another"})
        heart.add(trial)
    assert here.begin() == []
    assert here.elsewhere == 2
    heart.remove(trials[1])
    time.sleep(4.5)
    assert here.look() == [(1, sharing.SILENT, True)]
    states = [t.state for t in elsewhere.get_trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    with pytest.raises(UpdateFinishedTrialError):
        trials[1].report(0.5, 0)


def test_an_unsigned_trial_is_failed_after_a_while(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(url)
    storage.ask(study)
    here = Sharing(study, "here", shared=True)
    assert here.begin() == []
    monkeypatch.setattr(sharing, "UNSIGNED_SECONDS", -1.0)
    assert here.look() == [(0, sharing.SILENT, True)]


def test_a_search_ends_its_own_trials_only(url: str) -> None:
    study = _study(url)
    for name in ("here", "there"):
        storage.ask(study).set_user_attr(owner.OWNER, owner.sign(name, 0))
    Sharing(study, "here", shared=True).end()
    states = [t.state for t in study.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]


def test_a_journal_needs_no_heart(tmp_path: Path) -> None:
    study = storage.create_optuna(tmp_path, None, "s", "maximize")
    assert storage.database(study) is None
    heart = Heart(study)
    heart.add(study.ask())
    here = Sharing(study, "here", shared=False)
    assert here.begin() == [(0, sharing.DIED, True)]
    assert not here.due


def test_two_that_create_the_tables_at_once(postgres: Server, tmp_path: Path) -> None:
    opened: list[object] = []

    def open_() -> None:
        opened.append(Database(f"sqlite:///{tmp_path / 'new.db'}", lambda: False))

    both = [threading.Thread(target=open_) for _ in range(4)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(opened) == 4
