"""docs/guarantees.md names, for everything that may fail, a test that exists."""

from __future__ import annotations

import ast
import re

from tests.pages import ROOT, page

ROWS = [
    line for line in page("guarantees.md").splitlines() if re.match(r"\| (?!---|what fails)", line)
]
TEST = re.compile(r"`((?:tests|plugins)/[\w/.-]+\.py)(?:::(\w+))?`")


def test_every_guarantee_names_a_test() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        *cells, shown = row.strip("| ").split(" | ")
        assert len(cells) == 3, row
        assert TEST.findall(shown), f"no test shows: {cells[0]}"


def test_every_test_that_is_named_exists() -> None:
    for row in ROWS:
        for file, name in TEST.findall(row):
            assert (ROOT / file).is_file(), file
            if name:
                module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
                found = {one.name for one in module.body if isinstance(one, ast.FunctionDef)}
                assert name in found, f"{file}::{name}"


def test_every_fault_that_is_tested_is_in_the_table() -> None:
    named = {name for row in ROWS for _, name in TEST.findall(row)}
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        if file.name == "test_guarantees.py":
            continue
        for one in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(one, ast.FunctionDef) and one.name.startswith("test_"):
                assert one.name in named, f"{file.name}::{one.name}"
