"""Whatever is wrong with the input gets one sentence on standard error and exit code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from automl_tl.cli import errors
from automl_tl.errors import StudyError

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    ("search", "DATA, the images to learn from"),
    ("serach digits", "Did you mean 'search'?"),
    ("search digits --trials 0", "--trials to be at least 1, got 0"),
    ("search digits --trials -3", "--trials to be at least 1, got -3"),
    ("search digits --trials many", "Invalid value for '--trials'"),
    ("search digits --tirals 5", "--trials"),
    ("search digits --trials", "--trials"),
    ("search digits --workers 0", "--workers to be at least 1, got 0"),
    ("search digits --time 0", "such as 90s, 30m or 1h30m, got '0'"),
    ("search digits --time soon", "such as 90s, 30m or 1h30m, got 'soon'"),
    ("search digits --time -5m", "got '-5m'"),
    ("search digits --target 98", "0.98 is 98 %"),
    ("search digits --target 0", "above 0 and at most 1"),
    ("search digits --target nan", "above 0 and at most 1"),
    ("search digits --metric log_loss --target -1", "--target to be at least 0"),
    ("search digits --metric acuracy", "did you mean accuracy"),
    ("search digits --metric zzz", "choose accuracy, balanced_accuracy, macro_f1, log_loss"),
    ("search digits --seed -1", "--seed from 0"),
    ("search digits --device gpu", "--device auto, cpu, mps or cuda:0, got 'gpu'"),
    ("search digits --engine clowd", "Unknown engine 'clowd'"),
    ("search digits --storage study.db", "--storage to be a URL"),
    ("search digits --backbone torch/tinny", "did you mean torch/tiny"),
    ("search digits --weights torch/tiny", "--weights KEY=none|PATH|URL, got 'torch/tiny'"),
    ("search digits --weights torch/tinny=none", "did you mean torch/tiny"),
    ("search digits --set dropout", "NAME=VALUE, got 'dropout'"),
    ("search digits --set droput=0.1", "did you mean dropout"),
    ("search digits --set dropout=3", "from 0 to 0.99, got 3"),
    ("search digits --set learning_rate=1e-2..1e-4", "low < high"),
    ("search digits --set optimizer=adamx", "expected one of adam, "),
    ("search digits --config missing.toml", "cannot be read (No such file or directory)"),
    ("search digits --plugin missing.py", "--plugin missing.py: expected a Python file, but there"),
    ("search digits --plugin a_file", "--plugin a_file: expected a Python file, whose name ends"),
    ("backbones --plugin empty", "--plugin empty: expected a Python file"),
    ("plugin", "Missing command"),
    ("plugin new", "Missing argument 'NAME'"),
    ("plugin new ../evil", "got '../evil'; try evil"),
    ("plugin new torch", "already; choose another"),
    ("plugin new fine --kind nothing", "--kind backbone, backend, dataset, observer or engine"),
    ("plugin new empty", "empty, but it is there already"),
    ("plugin new fine -o nowhere", "-o nowhere: expected an existing folder"),
    ("search ./nowhere", "nowhere"),
    ("search dgits", "digits"),
    ("search empty", "empty"),
    ("search digits --study ./a_file", "a_file"),
    ("search digits extra", "extra"),
    ("show", "Missing argument 'STUDY'"),
    ("show nothing", "There is no study 'nothing' in studies/"),
    ("show ./nothing", "nothing"),
    ("show a_file", "a_file"),
    ("resume nothing", "There is no study 'nothing' in studies/"),
    ("resume nothing --trials 0", "There is no study 'nothing' in studies/"),
    ("export nothing -o model.onnx", "There is no study 'nothing' in studies/"),
    ("export nothing", "Missing option '--output'"),
    ("export nothing -o x --trial -1", "--trial to be a trial's number, got -1"),
    ("predict missing.onnx image.png", "missing.onnx"),
    ("predict a_file image.png", "a_file"),
    ("predict a_file", "Missing argument 'IMAGE...'"),
    ("predict a_file image.png --top 0", "--top to be at least 1, got 0"),
    ("predict a_file image.png --json --csv", "--json or --csv, got both"),
    ("evaluate missing.onnx digits", "missing.onnx"),
    ("evaluate a_file digits --split holdout", "--split train, validation or test, got 'holdout'"),
    ("data", "Missing command"),
    ("data check ./nowhere", "nowhere"),
    ("data check empty", "empty"),
    ("backbones torch/nonsense", "Unknown backbone 'torch/nonsense'"),
    ("cache", "Missing command"),
    ("--nonsense", "No such option: --nonsense"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("command", "expected"), CASES, ids=[command for command, _ in CASES])
def test_one_sentence_and_exit_code_2(cli, tmp_path: Path, command: str, expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").write_text("hello")
    result = cli(*command.split())
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert expected in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "studies").exists()


CONFIGS = [
    ("trials = 'ten'", "expected trials to be a whole number, got 'ten'"),
    ("trials = true", "expected trials to be a whole number, got True"),
    ("trails = 10", "unknown key 'trails': did you mean trials"),
    ("trial-time = 10", "unknown key 'trial-time': did you mean trial_timeout"),
    ("trial-timeout = 9\ntrial_timeout = 9", "expected trial_timeout once"),
    ("zzz = 10", "known are data, study, trials"),
    ("trials = ", "expected TOML, but"),
    ("time = [1]", "expected time to be a duration such as"),
    ("time = 'soon'", "got 'soon'"),
    ("backbone = 3", "expected backbone to be a string or a list of strings, got 3"),
    ("weights = 'none'", "expected weights to be a table"),
    ("set = {droput = 1}", "did you mean dropout"),
    ("set = 3", "expected set to be a table of parameters, got 3"),
    ("target = 98", "0.98 is 98 %"),
    ("first = 3", "expected first to be tables of parameters, each below [[first]], got 3"),
    ("[[first]]\n[[first]]\ndroput = 1", "Trial 2 of those to begin with: Unknown parameter"),
    ("seed = 1.5", "expected seed to be a whole number, got 1.5"),
]


@pytest.mark.parametrize(("content", "expected"), CONFIGS)
def test_wrong_configuration_files(cli, tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "study.toml").write_text(content)
    result = cli("search", "digits", "--config", "study.toml")
    assert result.code == 2
    assert expected in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_binary_configuration_file(cli, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe\x00")
    result = cli("search", "digits", "--config", "study.toml")
    assert result.code == 2
    assert result.err.startswith("Error: --config study.toml: expected TOML")


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def app(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("automl_tl.cli.app.app", app)


def test_errors_on_purpose(monkeypatch, cli) -> None:
    _raise(monkeypatch, StudyError("Expected a study, got \x1b[31mred."))
    result = cli("show", "x")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: Expected a study, got \\x1b[31mred.\n"


@pytest.mark.parametrize("how", ["--debug", "AUTOML_TL_DEBUG"])
def test_debug_shows_the_traceback(monkeypatch, cli, how: str) -> None:
    _raise(monkeypatch, StudyError("Expected a study."))
    if how == "--debug":
        result = cli("show", "--debug", "x")
    else:
        monkeypatch.setenv(how, "1")
        result = cli("show", "x")
    assert result.code == 2
    assert result.err.startswith("Traceback (most recent call last)")
    assert result.err.endswith("Error: Expected a study.\n")


def test_bugs_are_called_bugs(monkeypatch, cli) -> None:
    _raise(monkeypatch, ZeroDivisionError("division\nby zero"))
    result = cli("show", "x")
    assert result.code == errors.BUG
    assert result.err == (
        "This is a bug in automl-tl: ZeroDivisionError: division by zero; "
        "run with --debug and report it.\n"
    )


def test_files_that_cannot_be_opened_are_named(monkeypatch, cli) -> None:
    _raise(monkeypatch, PermissionError(13, "Permission denied", "secret.toml"))
    result = cli("show", "x")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: secret.toml: Permission denied.\n"


def test_ctrl_c(monkeypatch, cli) -> None:
    _raise(monkeypatch, KeyboardInterrupt())
    assert cli("show", "x").code == 130
