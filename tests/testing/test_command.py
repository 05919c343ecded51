"""``automl-tl plugin check``, and that the checks are all there and need no pytest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import automl_tl.testing
from automl_tl.cli.errors import run
from automl_tl.testing import (
    backend_checks,
    cases,
    dataset_checks,
    engine_checks,
    facts_checks,
    findings,
    fine_tune_checks,
    kit,
    plugin_checks,
    preprocess_checks,
    trainer_checks,
)

CASES = {
    cases.PluginTestCase: plugin_checks.PLUGIN_CHECKS,
    cases.BackboneTestCase: (*facts_checks.FACTS_CHECKS, kit.check_build, *kit.BENCH_CHECKS),
    cases.BackendTestCase: (
        kit.check_build,
        *kit.BENCH_CHECKS,
        *backend_checks.BACKEND_CHECKS,
        preprocess_checks.check_preprocessing,
        *trainer_checks.TRAINER_CHECKS,
        *fine_tune_checks.FINE_TUNE_CHECKS,
    ),
    cases.DatasetTestCase: dataset_checks.DATASET_CHECKS,
    cases.EngineTestCase: engine_checks.ENGINE_CHECKS,
}


def test_the_public_names_are_sorted_and_there() -> None:
    names = automl_tl.testing.__all__
    assert names == sorted(names)
    assert {case.__name__ for case in CASES} == set(names)
    for name in names:
        assert getattr(automl_tl.testing, name).__doc__


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_check_is_a_test_of_its_case(case) -> None:
    tests = {name for name in dir(case) if name.startswith("test_")}
    checks = {check.__name__.replace("check_", "test_", 1) for check in CASES[case]}
    assert tests == checks
    assert all(findings.rule(check) for check in CASES[case])


def test_a_right_plugin_is_said_to_be_right(install, capsys) -> None:
    assert run(["plugin", "check", install("numpynet"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["plugin"], facts["distribution"]) == ("numpynet", "kit-tests 1.0")
    assert facts["passed"] and facts["log"] is None
    assert all(finding["passed"] for finding in facts["findings"])
    subjects = {finding["subject"] for finding in facts["findings"]}
    assert subjects == {"numpynet", "numpynet/patches", "backend numpynet"}
    names = {finding["check"] for finding in facts["findings"]}
    for checks in list(CASES.values())[:3]:
        assert {findings.name_of(check) for check in checks} <= names | {"weights", "weights files"}


def test_a_wrong_plugin_is_said_to_be_wrong(install, capsys) -> None:
    assert run(["plugin", "check", install("wrong_hooks:misspelt")]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert "expected automl_tl_backbones, got automl_tl_backbone" in out
    assert "1 wrong" in out.splitlines()[-1]


def test_a_hook_that_hangs_does_not_hang_the_check(install, monkeypatch) -> None:
    from automl_tl.testing.kit import check_plugin

    report = check_plugin(install("wrong_hooks:hanging"), seconds=2)
    assert not report.passed
    assert {finding.subject for finding in report.findings} == {"hanging"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-like-it"], "Unknown plugin 'nothing-like-it': there are automl-tl,"),
        (["torhc"], "Unknown plugin 'torhc': did you mean torch?"),
        (["numpynet", "--backbone", "res*"], "no backbone of numpynet fits; it has numpynet/pat"),
    ],
)
def test_what_is_not_there_is_an_error_of_use(install, capsys, arguments, message) -> None:
    install("numpynet")
    assert run(["plugin", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_checks_need_no_pytest(install) -> None:
    script = (
        "import sys; sys.modules['pytest'] = None\n"
        "from automl_tl.cli.errors import run\n"
        f"sys.exit(run(['plugin', 'check', {install('wrong_hooks:misspelt')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "got automl_tl_backbone." in done.stdout
