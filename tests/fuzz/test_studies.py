"""A study directory from a stranger: any of its files may hold anything."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.api import Study
from automl_tl.cache.store import Store
from automl_tl.errors import StudyError
from automl_tl.kept import head_weights
from automl_tl.recorded import open_study
from automl_tl.report.trials import rows, time_spent
from automl_tl.report.write import write_report
from automl_tl.search_bounds import search_bounds
from tests.fuzz.mutations import fuzzed, mutated, read
from tests.report.conftest import fill, make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fuzz.conftest import Fresh

FILES = (
    "study.toml",
    "data.json",
    "split.csv",
    "journal.log",
    "result.json",
    "bounds.json",
    "trials/00003/history.json",
    "trials/00003/validation_logits.npy",
)
_seldom = settings(fuzzed, max_examples=max(10, fuzzed.max_examples // 10))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fill(make(tmp_path_factory.mktemp("sound"), images=10), 4)
    result = made.directory.result()
    assert result is not None
    made.directory.write_result({**result, "ensemble": {"members": [], "test": result["test"]}})
    made.directory.write_bounds({"trials": 20, "time": 60.0, "target": 0.9, "trial_timeout": "5m"})
    return made.directory.path


@pytest.mark.parametrize("name", FILES)
@fuzzed
@given(draw=st.data())
def test_any_study_is_shown_or_refused(
    fresh: Fresh, sound: Path, name: str, draw: st.DataObject
) -> None:
    study = read(Study.open, _changed(fresh, sound, name, draw))
    if study:
        read(study.summary)
        read(_bounds, study)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@_seldom
@given(draw=st.data())
def test_any_study_is_reported_or_refused(
    fresh: Fresh, sound: Path, name: str, draw: st.DataObject
) -> None:
    study = read(Study.open, _changed(fresh, sound, name, draw))
    if study:
        read(_report, study, fresh())


@pytest.mark.parametrize("name", ["result.json", "bounds.json"])
def test_any_value_may_be_another(fresh: Fresh, sound: Path, name: str) -> None:
    """Of what is well-formed, most edits of bytes leave the types alone."""
    path = fresh() / "study"
    shutil.copytree(sound, path)
    opened = Study.open(path)
    for text in _others(json.loads((sound / name).read_bytes())):
        (path / name).write_text(text)
        opened.summary()
        _bounds(opened)
        if name == "result.json" and opened._directory.result():
            _report(opened, path.parent)


def _others(value: Any, whole: str = "%s") -> Iterator[str]:
    """Yield a JSON text with each of its values missing, and as each of some odd ones."""
    for odd in ("x", [], {}, [1], {"a": None}, None, True, -1, 0, 0.5, 10**400, float("nan")):
        yield whole % json.dumps(odd)
    for key, one in value.items() if isinstance(value, dict) else ():
        rest = json.dumps({k: v for k, v in value.items() if k != key})
        yield whole % rest
        around = ", ".join(
            f"{json.dumps(k)}: {'%s' if k == key else json.dumps(v)}" for k, v in value.items()
        )
        yield from _others(one, whole % f"{{{around}}}")


def _bounds(study: Study) -> None:
    search_bounds(study._directory, None, None, None, None, started=None, tell=lambda event: None)


def _report(study: Study, cache: Path) -> Any:
    directory = study._directory
    return write_report(directory, study._data, open_study(directory), Store(cache), None)


@pytest.mark.parametrize(
    ("name", "text", "changed"),
    [
        ("journal.log", b'"learning_rate":', b'"learning_rat":'),
        ("journal.log", b'"pooling":', b'"poolin":'),
        ("study.toml", b'"torch/tiny" = ', b'"torch/any" = '),
    ],
)
def test_what_was_refused_too_late_once(
    fresh: Fresh, sound: Path, name: str, text: bytes, changed: bytes
) -> None:
    path = fresh() / "study"
    shutil.copytree(sound, path)
    (path / name).write_bytes(unchecked(path / name).replace(text, changed))
    with pytest.raises(StudyError, match="damaged"):
        Study.open(path).summary()


def test_a_history_that_is_none_is_left_out(fresh: Fresh, sound: Path) -> None:
    path = fresh() / "study"
    shutil.copytree(sound, path)
    history = path / "trials" / "00003" / "history.json"
    history.write_bytes(history.read_bytes().replace(b'"seconds"', b'"second"'))
    study = Study.open(path)
    assert time_spent(study._directory, rows(study._study()))["search_s"] > 0


@fuzzed
@given(data=mutated([b'{"00":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}']))
def test_a_head(fresh: Fresh, data: bytes) -> None:
    path = fresh() / "head.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(4))
    read(head_weights, path)


def unchecked(path: Path) -> bytes:
    """Return a file's content, without the journal's checksums: who means harm computes them."""
    return re.sub(rb',"crc32":"[0-9a-f]{8}"', b"", path.read_bytes())


def _changed(fresh: Fresh, sound: Path, name: str, draw: st.DataObject) -> Path:
    """Copy the study with one file changed."""
    path = fresh() / "study"
    shutil.copytree(sound, path)
    (path / name).write_bytes(draw.draw(mutated([unchecked(sound / name)])))
    return path
