from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl import storage
from automl_tl.dashboard import Dashboard
from automl_tl.dashboard_text import trial_note
from tests.report.conftest import Made, fill, make

optuna_dashboard = pytest.importorskip("optuna_dashboard")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = "<script>alert(1)</script> *now*"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A study of six trials, the last one failed."""
    made = fill(make(tmp_path, picture=False), 5)
    made.add(made.study, None, reason=SCRIPT, notes=["batch size 32 became 2 x 16"])
    return made


@pytest.fixture
def served(made: Made) -> Iterator[Dashboard]:
    dashboard = Dashboard(made.directory, made.data, 0)
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    yield dashboard
    dashboard.close()
    thread.join(10)
    assert not thread.is_alive()


def get(dashboard: Dashboard, path: str, method: str = "GET", **headers: str) -> bytes:
    root = dashboard.url.partition("/dashboard")[0]
    request = urllib.request.Request(root + path, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: bytes = answer.read()
    return body


def detail(dashboard: Dashboard) -> dict[str, Any]:
    study: dict[str, Any] = json.loads(get(dashboard, "/api/studies/0"))
    return study


def test_the_notes_say_what_was_trained(made: Made, served: Dashboard) -> None:
    study = detail(served)
    best = storage.best_trials(made.study)[0]
    result = made.directory.result()
    assert result is not None
    tested = f"accuracy {100 * result['test']['accuracy']:.1f} %"
    notes = [trial["note"]["body"] for trial in study["trials"]]
    for number, note in enumerate(notes):
        assert note.startswith(f"**automl-tl** trial {number}, ")
        assert f"- framework: {('torch', 'keras')[number % 2]}\n" in note
        assert "- layers trained: 6 of 12, from layer 6, and the head\n" in note
        assert "- duration: 18s\n" in note
        assert (f"- test: {tested}" in note) == (number == best.number)
        assert ("- validation: accuracy " in note) == (number < 4)
    assert f"- best: trial {best.number}, " in study["note"]["body"]
    assert f"- test: {tested}" in study["note"]["body"]
    assert study["objective_names"] == ["accuracy"]


def test_text_from_outside_is_no_markup(served: Dashboard) -> None:
    note = detail(served)["trials"][5]["note"]["body"]
    assert r"- failed: \<script\>alert(1)\</script\> \*now\*" in note
    assert "- batch size 32 became 2 x 16" in note


def test_facts_are_columns(made: Made, served: Dashboard) -> None:
    study = detail(served)
    columns = {column["key"]: column["sortable"] for column in study["union_user_attrs"]}
    assert columns["framework"] is False
    assert columns["trainable_parameters"] is True
    assert columns["validation_accuracy"] is True
    assert "facts" not in columns
    values = {one["key"]: one["value"] for one in study["trials"][0]["user_attrs"]}
    assert (values["backbone"], values["framework"]) == ("torch/tiny", "torch")
    assert float(values["validation_accuracy"]) == made.study.trials[0].value


def test_nothing_can_be_changed_through_it(made: Made, served: Dashboard) -> None:
    for method, path in (
        ("DELETE", "/api/studies/0"),
        ("POST", "/api/studies/0/rename"),
        ("POST", "/api/trials/0/tell"),
        ("PUT", "/api/studies/0/note"),
    ):
        with pytest.raises(urllib.error.HTTPError, match="405"):
            get(served, path, method)
    assert len(made.study.trials) == 6


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "[::2]", ""])
def test_a_page_of_another_name_cannot_read_it(made: Made, served: Dashboard, host: str) -> None:
    (made.directory.path / "report.html").write_text("<p>a report</p>")
    for path in ("/report", "/api/studies/0"):
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            get(served, path, Host=host)
        reason = json.loads(refused.value.read())["reason"]
        assert f"got one to {host!r}: open http://127.0.0.1:" in reason


@pytest.mark.parametrize("host", ["LOCALHOST:9", "127.0.0.1", "[::1]:8080"])
def test_this_machine_has_several_names(served: Dashboard, host: str) -> None:
    assert get(served, "/api/studies/0", Host=host)


def test_notes_follow_the_search_and_spare_what_people_wrote(made: Made) -> None:
    dashboard = Dashboard(made.directory, made.data, 0)
    dashboard.annotate()
    journal = made.directory.path / storage.JOURNAL
    written = journal.stat().st_size
    dashboard.annotate()
    Dashboard(made.directory, made.data, 0).annotate()
    assert journal.stat().st_size == written

    study = made.study
    optuna_dashboard.save_note(study, "Mine.")
    made.add(study, made.logits("validation", 1.0))
    made.directory.write_result({**made.directory.result(), "trial": 6})  # type: ignore[dict-item]
    (made.directory.path / "report.html").write_text("<p>a report</p>")
    dashboard.annotate()
    Dashboard(made.directory, made.data, 0).annotate()
    attributes = made.study._storage.get_study_system_attrs(0)
    assert "- test: accuracy" in attributes["dashboard:6:note_str:0"]
    assert "- test: accuracy" not in attributes["dashboard:3:note_str:0"]
    assert optuna_dashboard.get_note(made.study) == "Mine."


def test_the_report_is_linked_when_there_is_one(made: Made) -> None:
    (made.directory.path / "report.html").write_text("<p>a report</p>")
    dashboard = Dashboard(made.directory, made.data, 0)
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    try:
        assert get(dashboard, "/report") == b"<p>a report</p>"
        assert "(/report)" in detail(dashboard)["note"]["body"]
    finally:
        dashboard.close()
        thread.join(10)


def test_a_study_that_has_just_begun_is_shown(tmp_path: Path) -> None:
    made = make(tmp_path, picture=False)
    made.study.ask()
    dashboard = Dashboard(made.directory, made.data, 0)
    dashboard.annotate()
    assert "- no trial has finished yet" in optuna_dashboard.get_note(made.study)


def test_a_trial_that_failed_at_once_has_a_note() -> None:
    names = ("backbone", "validation", "planned_epochs", "duration_s", "device", "stopped")
    names += ("fine_tune_at", "layers", "total_parameters", "trainable_parameters")
    trial = {**dict.fromkeys(names), "number": 3, "state": "failed", "epochs": 0}
    note = trial_note({**trial, "reason": "no weights", "notes": []}, {"best": None})
    assert note == "**automl-tl** trial 3, failed\n\n- failed: no weights"


def test_ctrl_c_ends_it(made: Made) -> None:
    arguments = ["dashboard", str(made.directory.path), "--no-open", "--port", "0"]
    # What runs in the background of a shell, as a whole test run may, is started deaf to SIGINT.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hears}; from automl_tl.__main__ import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(line.split()[0], timeout=20) as answer:
        assert b"<html" in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_is_missing_or_taken_is_said_in_a_sentence(
    cli: Any, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Dashboard(made.directory, made.data, 0)
    port = taken.url.partition("127.0.0.1:")[2].partition("/")[0]
    result = cli("dashboard", made.directory.path, "--no-open", "--port", port)
    assert result.code == 2
    assert result.err.startswith(f"Error: The dashboard cannot listen on port {port} (")
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    result = cli("dashboard", made.directory.path, "--no-open")
    assert result.code == 2
    assert "`pip install 'automl-tl[dashboard]'`" in result.err
