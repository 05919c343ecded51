"""Model files from a stranger; those of frameworks are tried in the plugins' tests."""

from __future__ import annotations

import io
import json
import zipfile
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from automl_tl.identify import identify
from automl_tl.modelfile import KEY, ModelFacts
from automl_tl.onnx_file import read_metadata, refers_to_other_files
from automl_tl.types import Head
from tests.fuzz.mutations import fuzzed, mutated, read
from tests.fuzz.test_words import nested

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.conftest import Fresh

FACTS = ModelFacts("torch/tiny", 8, "squash", ("a", "b"), Head(classes=2), 4)
METADATA = FACTS.metadata()


def files() -> list[bytes]:
    """Return model files of all kinds, with sound metadata and nothing else in them."""
    header = json.dumps({"__metadata__": METADATA}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"model/extra/{KEY}", METADATA[KEY])
    packed = buffer.getvalue()
    entry = _field(1, KEY.encode()) + _field(2, METADATA[KEY].encode())
    return [
        len(header).to_bytes(8, "little") + header,
        packed,
        b"\x1c\0\0\0TFL3" + bytes(20) + packed,
        _field(14, entry) + _field(7, _field(1, b"node")),
    ]


def _field(number: int, data: bytes) -> bytes:
    """Return a field of a protobuf message."""
    length, rest = b"", len(data)
    while True:
        more = rest >> 7
        length += bytes([rest & 127 | (128 if more else 0)])
        rest = more
        if not rest:
            return bytes([number << 3 | 2]) + length + data


FILES = files()


@fuzzed
@given(data=mutated(FILES))
def test_a_model_file_is_identified_or_refused(fresh: Fresh, data: bytes) -> None:
    path = fresh() / "model"
    path.write_bytes(data)
    read(identify, path)


def test_the_files_that_are_changed_are_sound(fresh: Fresh) -> None:
    kinds = []
    for data in FILES:
        path = fresh() / "model"
        path.write_bytes(data)
        kinds.append(identify(path).kind)
    assert kinds == ["safetensors", "archive", "litert", "onnx"]


@fuzzed
@given(change=st.dictionaries(st.sampled_from(sorted(json.loads(METADATA[KEY]))), nested))
def test_facts_of_any_type(fresh: Fresh, change: dict[str, object]) -> None:
    read(identify, _holding(fresh, json.loads(METADATA[KEY]) | change))


HEADS = {
    "classes": st.just(2),
    "units": st.lists(st.integers(-1, 10**9), max_size=3),
    "dropout": st.floats() | st.integers(),
    "pooling": st.sampled_from(("avg", "max", "flatten", "x")),
    "scale": st.floats(),
}


@fuzzed
@given(head=st.fixed_dictionaries({}, optional={k: v | nested for k, v in HEADS.items()}))
def test_a_head_of_any_type_can_be_built_or_is_refused(fresh: Fresh, head: dict[str, Any]) -> None:
    facts = json.loads(METADATA[KEY])
    path = _holding(fresh, facts | {"head": facts["head"] | head})
    found = read(identify, path)
    if found is None:
        return
    head = found.facts.head
    assert head.classes == 2 and head.pooling in ("avg", "max", "flatten")
    assert 0 <= head.dropout < 1 and 0 < head.scale < float("inf")
    assert all(units > 0 for units in head.units)
    kernels = [a * b for a, b in pairwise(head.units)]
    assert sum((*head.units, *kernels)) <= path.stat().st_size


def _holding(fresh: Fresh, facts: dict[str, Any]) -> Path:
    """Write a model file with these facts and nothing else in it."""
    header = json.dumps({"__metadata__": {KEY: json.dumps(facts, default=str)}}).encode()
    path = fresh() / "model"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@fuzzed
@given(st.binary(max_size=300) | mutated(FILES[3:]))
def test_a_protobuf_message(data: bytes) -> None:
    for reader in (read_metadata, refers_to_other_files):
        try:
            reader(data)
        except ValueError as error:
            assert str(error)
