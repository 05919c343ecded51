"""The data of a study, written and read back whatever the files are called."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.csv_rows import row_writer
from automl_tl.modelfile import source_id
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import SPLITS, StudyData, as_csv, as_facts, parse

if TYPE_CHECKING:
    from pathlib import Path

ODD = (
    *("a\r.png", "\r", "\r\n", "\n\r\n", 'say "a".png', '"', "a,b;c\td.png", " lead", " ", ""),
    *("=1+1", "''", "\x1b[31m", "caf\u00e9", "cafe\u0301", "\u2028", "\x85", "\x0b", "\x1c"),
    os.fsdecode(b"\xff\xfe.png"),
)


def _data(names: tuple[str, ...]) -> StudyData:
    return StudyData(
        classes=names,
        names=tuple(f"{name}/{name}" for name in names),
        labels=np.arange(len(names), dtype=np.int64),
        splits=tuple((None, *SPLITS)[i % 4] for i in range(len(names))),
        hashes=tuple(f"{i:064x}" for i in range(len(names))),
        dataset_hash="all",
        facts={"notes": list(names)},
    )


def _same(found: StudyData, wanted: StudyData) -> bool:
    fields = ("classes", "names", "splits", "hashes", "dataset_hash", "facts")
    labels = found.labels.tolist() == wanted.labels.tolist()
    return labels and all(getattr(found, one) == getattr(wanted, one) for one in fields)


def test_any_file_name_survives(tmp_path: Path) -> None:
    data = _data(ODD)
    config = Config("s", os.fsdecode(b"/photos/caf\xe9\r"), ())
    StudyDirectory.create(tmp_path / "s", config, data)
    found = StudyDirectory.open(tmp_path / "s")
    assert found.config == config
    assert _same(found.data(), data)


@given(st.lists(st.text(max_size=6), unique=True))
def test_any_text_survives(names: list[str]) -> None:
    data = _data(tuple(names))
    assert _same(parse(as_facts(data), as_csv(data)), data)


def test_only_rows_that_need_it_are_quoted() -> None:
    file = io.StringIO(newline="")
    write = row_writer(file)
    write(("a", "b"))
    write((1, "c\r", 0.5))
    write(("d", "e"))
    assert file.getvalue() == 'a,b\n"1","c\r","0.5"\nd,e\n'


@pytest.mark.parametrize("source", ["digits", os.fsdecode(b"caf\xe9"), "\ud800"])
def test_every_source_has_an_identity(source: str) -> None:
    assert len(source_id(source)) == 16
