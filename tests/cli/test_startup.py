"""Starting up is instant: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("keras", "numpy", "onnxruntime", "optuna", "pandas", "PIL", "pluggy", "rich", "scipy")
HEAVY += ("sklearn", "sqlalchemy", "tensorflow", "torch", "torchvision", "automl_tl_torch")

COMMANDS = (
    *"search resume worker show report dashboard export predict evaluate features".split(),
    *"backbones doctor plugins".split(),
    ["data", "check"],
    ["plugin", "check"],
    ["cache", "show"],
    ["cache", "clear"],
    ["plugin", "new"],
)


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"], []])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from automl_tl.cli.errors import run\n"
        f"code = run({arguments!r})\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(("Usage: automl-tl", "automl-tl 0."))
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_explains_itself(cli, command) -> None:
    words = [command] if isinstance(command, str) else command
    result = cli(*words, "--help")
    assert result.code == 0
    assert f"Usage: automl-tl {' '.join(words)}" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())


def test_help_lists_exactly_these_commands(cli) -> None:
    listed = cli("--help").out.partition("Commands:")[2].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and "Try" not in line]
    assert names == [c for c in COMMANDS if isinstance(c, str)] + ["data", "plugin", "cache"]


def test_module_and_console_script_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "automl_tl", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("automl-tl 0.")


def test_a_reader_that_leaves_is_silent() -> None:
    script = "import sys, os; from automl_tl.cli.errors import run; sys.exit(run(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
