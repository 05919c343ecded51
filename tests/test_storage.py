from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from automl_tl import journal, storage
from automl_tl.errors import StudyError
from automl_tl.facts import FACTS
from tests.storages import open_study

if TYPE_CHECKING:
    from pathlib import Path


def run_trial(study: optuna.Study) -> float:
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    study.tell(trial, -((x - 0.3) ** 2))
    return x


def test_half_a_line_left_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    run_trial(study)
    journal = tmp_path / storage.JOURNAL
    whole = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","tr')
    run_trial(open_study(tmp_path))
    assert journal.read_bytes().startswith(whole)
    assert len(open_study(tmp_path).trials) == 2


def test_the_lock_of_a_killed_writer_is_free_at_once(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from automl_tl.journal import JournalLock
JournalLock(Path(sys.argv[1]) / "journal.log").acquire()
print("held", flush=True)
time.sleep(60)
"""
    open_study(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    started = time.monotonic()
    run_trial(open_study(tmp_path))
    assert time.monotonic() - started < 5


def test_parameters_are_written_together_and_read_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path)
    appended: list[int] = []
    append = JournalFileBackend.append_logs

    def counting(self: JournalFileBackend, logs: list[dict[str, object]]) -> None:
        appended.append(len(logs))
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", counting)
    trial = study.ask()
    for name in "abcd":
        trial.suggest_float(name, 0, 1)
    assert appended == [1]
    trial.set_user_attr("k", 1)
    assert appended == [1, 5]
    (seen,) = open_study(tmp_path).trials
    assert seen.params == trial.params
    study.tell(trial, 1.0)
    assert study.trials[0].params == seen.params
    again = study.ask({"e": optuna.distributions.FloatDistribution(0, 1)})
    assert study.trials[1].params == again.params  # reading writes what waits, too


def test_the_code_of_parameters_is_optunas() -> None:
    assert journal._PARAMETER == JournalOperation.SET_TRIAL_PARAM


def test_processes_share_a_journal(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from automl_tl import storage
study = storage.open_optuna(Path(sys.argv[1]), None, "s", 0)
for _ in range(15):
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))
"""
    open_study(tmp_path)
    both = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    trials = open_study(tmp_path).trials
    assert [trial.number for trial in trials] == list(range(30))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_the_same_seed_draws_the_same_trials_and_a_resumed_study_goes_on(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        (tmp_path / name).mkdir()
    straight = open_study(tmp_path / "one", seed=5)
    expected = [run_trial(straight) for _ in range(14)]
    resumed = [run_trial(open_study(tmp_path / "two", seed=5)) for _ in range(14)]
    assert resumed == expected
    assert len(set(expected)) == 14
    assert run_trial(open_study(tmp_path / "other", seed=6)) != expected[0]


def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be opened"):
        storage.open_storage(tmp_path, "nonsense://x")


def test_sqlite_works_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'o.db'}"
    run_trial(open_study(tmp_path, url=url))
    assert len(storage.open_optuna(tmp_path, url, "s", 0).trials) == 1


def test_only_a_studys_creation_makes_a_sqlite_file_or_tables_in_it(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE cookies (name)")
    before = other.read_bytes()
    for url in (f"sqlite:///{tmp_path}/no.db", f"sqlite:///file:{tmp_path}/no.db?uri=true"):
        with pytest.raises(StudyError, match=r"'s' has lost its database .*no\.db: put it back"):
            storage.open_optuna(tmp_path, url, "s", 0)
        assert storage.find_optuna(tmp_path, url, "s") is None
    with pytest.raises(StudyError, match=r"other\.db cannot be opened: no such table"):
        storage.open_optuna(tmp_path, f"sqlite:///{other}", "s", 0, lambda: False)
    assert list(tmp_path.iterdir()) == [other]
    assert other.read_bytes() == before


def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path) -> None:
    run_trial(open_study(tmp_path))
    journal = tmp_path / storage.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = b"nonsense\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"Line 3 of .* is damaged: keep a copy"):
        open_study(tmp_path)


def test_a_flipped_byte_in_the_journal_is_noticed_or_harmless(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.suggest_categorical("y", ["a", "b"])
    trial.set_user_attr(FACTS, {"spec": {"depth": 0.5}, "notes": ["fine", "schön"]})
    trial.report(0.25, 1)
    study.tell(trial, 0.5)
    run_trial(study)
    path = tmp_path / storage.JOURNAL
    original, told = path.read_bytes(), study.get_trials()
    harmless = 0
    for place in range(len(original)):
        path.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
        try:
            assert storage.open_optuna(tmp_path, None, "s", 0).get_trials() == told
            harmless += 1
        except StudyError as error:
            assert re.fullmatch(
                r"Line \d+ of .* is damaged: keep .*, and the study opens .*", str(error)
            )
    assert harmless < len(original) / 10


def test_lines_without_a_checksum_are_believed(tmp_path: Path) -> None:
    run_trial(open_study(tmp_path))
    path = tmp_path / storage.JOURNAL
    text, count = re.subn(r',"crc32":"[0-9a-f]{8}"', "", path.read_text())
    assert count == text.count("\n")
    path.write_text(text)
    run_trial(open_study(tmp_path))
    plain = JournalStorage(JournalFileBackend(str(path)))
    assert len(optuna.load_study(study_name="s", storage=plain).trials) == 2


def test_a_lost_or_emptied_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has lost its journal"):
        storage.open_optuna(tmp_path, None, "s", 0)
    (tmp_path / storage.JOURNAL).touch()
    with pytest.raises(StudyError, match="was the file emptied or moved"):
        storage.open_optuna(tmp_path, None, "s", 0)


def test_opening_writes_nothing(tmp_path: Path) -> None:
    run_trial(open_study(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(storage.open_optuna(tmp_path, None, "s", 0).trials) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_relative_sqlite_file_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.sqlite_absolute("sqlite:///s.db") == f"sqlite:///{tmp_path / 's.db'}"
    assert storage.sqlite_absolute("postgresql://h/d") == "postgresql://h/d"
    assert storage.sqlite_absolute(None) is None


def test_a_creation_that_was_killed_is_done_again(tmp_path: Path) -> None:
    for _ in range(2):
        storage.create_optuna(tmp_path, None, "s", "maximize")
    assert storage.open_optuna(tmp_path, None, "s", 0).trials == []
