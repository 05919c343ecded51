"""What a crash or a bad disk leaves in the cache is computed again, never believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.cache.store import Store
from tests.fuzz.mutations import fuzzed, mutated, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.conftest import Fresh

KEY = {"images": "abc", "size": 8}
ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)


def _write(path: Path) -> None:
    np.save(path, ARRAY)


@fuzzed
@given(name=st.sampled_from(["meta.json", "data.npy"]), draw=st.data())
def test_a_damaged_array_is_computed_again(fresh: Fresh, name: str, draw: st.DataObject) -> None:
    root = fresh()
    store = Store(root)
    entry, _ = store.get("activations", KEY, ARRAY.shape, "float32", _write)
    changed = entry.path.with_name(name)
    original = changed.read_bytes()
    changed.write_bytes(draw.draw(mutated([original])))
    again = Store(root)
    read(again.usage)
    read(again.shrink, 1000)
    entry, _ = again.get("activations", KEY, ARRAY.shape, "float32", _write)
    assert np.array_equal(entry.array(), ARRAY)


@fuzzed
@given(data=mutated([b'{"checksum": 1, "value": {"a": [1, 2]}}']))
def test_what_is_remembered_may_be_damaged(fresh: Fresh, data: bytes) -> None:
    root = fresh()
    store = Store(root)
    store.remember("weights", KEY, lambda: "first")
    for path in root.rglob("*.json"):
        path.write_bytes(data)
    Store(root).remember("weights", KEY, lambda: "again")
