"""What `predict --csv` prints of names that a stranger chose."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from automl_tl.cli.predict import _write_csv
from automl_tl.predict import Prediction


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("daisy", "daisy"),
        ('a "b", c; d', 'a "b", c; d'),
        ("caf\u00e9 -1", "caf\u00e9 -1"),
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\t=1", "\\t=1"),
        ("\r\n=1", "\\r\\n=1"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\udcff", "\\udcff"),
        ("", ""),
    ],
)
def test_a_name_neither_drives_a_terminal_nor_is_calculated(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_csv([Prediction(Path(name), ((name, 0.25),)), Prediction(Path("x"), (), name)])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    path = shown or "."
    assert [(row["path"], row["class"], row["error"]) for row in rows] == [
        (path, shown, ""),
        ("x", "", shown),
    ]
    assert (rows[0]["rank"], rows[0]["probability"]) == ("1", "0.250000")
