"""A study's database: it may be away for a while, and dead trials are noticed from elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from automl_tl import database, owner, sharing, storage
from automl_tl.database import Database
from automl_tl.errors import StudyError
from automl_tl.heart import Heart
from automl_tl.sharing import Sharing
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.summary import summarise
from tests.servers import mysql, postgres, server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Server

__all__ = ["mysql", "postgres", "server"]

ELSEWHERE = {**owner.sign("elsewhere", 0), "host": "another"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def _study(url: str, hurried=lambda: False) -> optuna.Study:
    found = storage.open_storage(None, url, hurried)
    return optuna.create_study(storage=found, study_name="s", load_if_exists=True)


def _in_time(asked: Callable[[], Any]) -> Any:
    """Ask until the answer is not empty; return it, or the last one after a minute."""
    deadline = time.monotonic() + 60
    while not (answer := asked()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def test_a_call_waits_while_the_database_is_away(server: Server) -> None:
    study = _study(server.url)
    trial = storage.ask(study)
    trial.suggest_float("x", 0, 1)
    server.stop()
    threading.Timer(1.5, server.start).start()
    before = time.monotonic()
    study.tell(trial, 0.5)
    assert time.monotonic() - before > 1
    assert [t.state for t in _study(server.url).trials] == [TrialState.COMPLETE]
    study.ask().report(0.1, 0)


def test_every_call_waits(url: str) -> None:
    """Also those that Optuna's cache makes past the public methods."""
    study = _study(url)
    found = storage.database(study)
    assert found is not None
    away = threading.Event()

    def fail_once(*_: object) -> None:
        if away.is_set():
            away.clear()
            raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    event.listen(found.engine, "before_cursor_execute", fail_once)
    trial = storage.ask(study)
    calls: list[Callable[[], object]] = [
        lambda: storage.ask(study),
        lambda: trial.suggest_float("x", 0, 1),
        lambda: trial.report(0.5, 0),
        lambda: trial.set_user_attr("a", 1),
        lambda: study.tell(trial, 0.5),
        study.get_trials,
        lambda: study.best_trial,
        lambda: study.enqueue_trial({"x": 0.1}),
        lambda: study.set_user_attr("a", 1),
        lambda: study.user_attrs,
        lambda: storage.stale(study),
        lambda: storage.heard(study, []),
        lambda: found.record_heartbeat(1),
    ]
    for call in calls:
        away.set()
        call()
        assert not away.is_set(), "this call asks nothing of the database"


def test_who_is_in_a_hurry_does_not_wait(server: Server) -> None:
    study = _study(server.url, hurried=lambda: True)
    server.stop()
    try:
        with pytest.raises(
            StudyError, match=r"127\.0\.0\.1:\d+/\w+ cannot be used: .* server runs"
        ):
            storage.ask(study)
        with pytest.raises(
            StudyError, match=r"The storage 127\.0\.0\.1:\d+/\w+ cannot be opened: "
        ):
            storage.open_storage(None, server.url)
    finally:
        server.start()


def test_what_a_database_refuses_is_a_sentence(server: Server, tmp_path: Path) -> None:
    def refused(url: str) -> str:
        with pytest.raises(StudyError) as caught:
            storage.create_optuna(tmp_path, url, "s", "maximize")
        sentence = str(caught.value)
        assert "\n" not in sentence and "Error" not in sentence and "tested" not in sentence
        return sentence

    whole, _, name = server.url.rpartition("/")
    assert "create the database" in refused(f"{whole}/nosuch")
    driver, _, address = whole.partition("://")
    if driver.startswith("mysql"):
        assert "names no database" in refused(whole)
        address = address.partition("@")[2]
        said = refused(f"{driver}://tester:wrong@{address}/{name}")
        assert "Access denied" in said and "check the user and the password" in said


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://me@h/d", r'h/d needs .* pymysql: pip install "automl-tl\[mysql\]", and begin'),
        ("mysql+mysqldb://h/d", "and begin the URL with mysql[+]pymysql://"),
        ("oracle://h/d", "needs the Python package oracledb: pip install oracledb"),
    ],
)
def test_a_missing_driver_is_named(url: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        storage.open_storage(None, url)


@pytest.mark.slow
def test_many_that_ask_at_once_leave_no_gap(server: Server) -> None:
    """MySQL reads as of a transaction's start, where PostgreSQL reads what is there now."""

    def search() -> None:
        study = optuna.create_study(
            storage=storage.open_storage(None, server.url, lambda: False),
            study_name="many",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )
        for _ in range(20):
            trial = storage.ask(study)
            trial.report(trial.suggest_float("x", 0, 1), 0)
            study.tell(trial, 0.5)

    searches = [threading.Thread(target=search) for _ in range(4)]
    for thread in searches:
        thread.start()
    for thread in searches:
        thread.join()
    study = optuna.load_study(study_name="many", storage=storage.open_storage(None, server.url))
    assert [(t.number, t.state.name) for t in study.trials] == [
        (number, "COMPLETE") for number in range(80)
    ]


def test_waiting_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.3)
    study = _study(url)
    calls = []

    def away(*_: object) -> None:
        calls.append(0)
        error = OperationalError("SELECT 1", {}, Exception("server closed the connection"))
        raise StorageInternalError from error

    found = storage.database(study)
    assert found is not None
    with pytest.raises(StudyError, match=r"cannot be used: server closed the connection\."):
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


@pytest.mark.parametrize(
    "at", ["url", *(pytest.param(one, marks=pytest.mark.slow) for one in ("postgres", "mysql"))]
)
def test_a_silent_trial_is_failed_and_tried_again_and_one_with_a_heart_is_not(
    at: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = request.getfixturevalue(at)
    url = found if at == "url" else found.url
    monkeypatch.setattr(database, "BEAT_SECONDS", 1)
    monkeypatch.setattr(database, "STALE_SECONDS", 5)  # a busy machine's beats come late
    elsewhere = _study(url)
    here = Sharing(_study(url), "here", shared=True)
    heart = Heart(elsewhere, ELSEWHERE)
    trials = [storage.ask(elsewhere) for _ in range(2)]
    for trial in trials:
        heart.add(trial)
    assert here.begin() == []
    assert here.elsewhere == 2
    heart.remove(trials[1])
    assert _in_time(here.look) == [(1, sharing.SILENT, True)]
    states = [t.state for t in elsewhere.get_trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    with pytest.raises(UpdateFinishedTrialError):
        trials[1].report(0.5, 0)


@pytest.mark.parametrize("signed", [False, True])
def test_a_trial_that_never_gave_a_sign_of_life_is_failed_after_a_while(
    url: str, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(url)
    trial = storage.ask(study)
    if signed:
        trial.set_user_attr(owner.OWNER, ELSEWHERE)
    here = Sharing(study, "here", shared=True)
    assert here.begin() == []
    monkeypatch.setattr(sharing, "FIRST_SIGN_SECONDS", 0.0)
    assert here.look() == [(0, sharing.SILENT, True)]


def test_a_trial_whose_machine_is_lost_while_it_is_signed_falls_silent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(Exception):
        pass

    def sign(*_: object) -> None:
        raise Lost

    study = _study(url)
    trial = storage.ask(study)
    monkeypatch.setattr(trial, "set_user_attr", sign)
    heart = Heart(study, ELSEWHERE)
    with pytest.raises(Lost):
        heart.add(trial)
    heart.remove(trial)
    here = storage.database(study)
    assert here is not None
    with here.engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = '2026-01-01 00:00:00'"))
    assert Sharing(study, "here", shared=True).begin() == [(0, sharing.SILENT, True)]


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
    heart = Heart(study, owner.sign("gone", 0))
    heart.add(study.ask())
    here = Sharing(study, "here", shared=False)
    assert here.begin() == [(0, sharing.DIED, True)]
    assert not here.due


def test_two_that_create_the_tables_at_once(tmp_path: Path) -> None:
    opened: list[object] = []

    def open_() -> None:
        opened.append(Database(f"sqlite:///{tmp_path / 'new.db'}", lambda: False))

    both = [threading.Thread(target=open_) for _ in range(4)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(opened) == 4


def test_a_search_is_at_work_unless_all_that_runs_is_known_to_be_dead(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BEAT_SECONDS", 1)
    monkeypatch.setattr(database, "STALE_SECONDS", 2)
    study = _study(url)
    silent, dead = storage.ask(study), storage.ask(study)
    assert sharing.at_work(study), "nobody knows of a trial without a sign"
    dead.set_user_attr(owner.OWNER, {**owner.sign("gone", 0), "started": 1.0})
    heart = Heart(study, ELSEWHERE)
    heart.add(silent)
    assert sharing.at_work(study), "a trial elsewhere has a heart"
    heart.remove(silent)
    assert _in_time(lambda: not sharing.at_work(study))
    storage.ask(study).set_user_attr(owner.OWNER, owner.sign("here", 0))
    assert sharing.at_work(study), "a new one runs here"


def test_a_live_study_in_a_database_was_not_interrupted(url: str, tmp_path: Path) -> None:
    data = StudyData(("a",), (), np.array([], np.int64), (), (), "none", {})
    study = storage.create_optuna(tmp_path, url, "s", "maximize")
    made = StudyDirectory.create(tmp_path / "s", Config("s", "x", (), storage=url), data)
    trial = storage.ask(study)
    for started, interrupted in ((owner.sign("live", 0)["started"], False), (1.0, True)):
        trial.set_user_attr(owner.OWNER, {**owner.sign("live", 0), "started": started})
        assert summarise(made, data, study)["interrupted"] == interrupted
