"""What a crash or a bad disk leaves in the cache is computed again, never believed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.cache import contents
from automl_tl.cache.store import Store
from tests.fuzz.mutations import fuzzed, mutated, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.conftest import Fresh

KEY = {"images": "abc", "size": 8}
ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)


def _write(path: Path) -> None:
    np.save(path, ARRAY)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    Store(root).get("activations", KEY, ARRAY.shape, "float32", _write)
    return root


@pytest.mark.parametrize("name", ["meta.json", "data.npy"])
@fuzzed
@given(draw=st.data())
def test_a_damaged_array_is_computed_again(
    fresh: Fresh, sound: Path, name: str, draw: st.DataObject
) -> None:
    root = fresh()
    shutil.copytree(sound, root, dirs_exist_ok=True)
    (changed,) = root.rglob(name)
    changed.write_bytes(draw.draw(mutated([changed.read_bytes()])))
    store = Store(root)
    read(contents.usage, store.root)
    read(store.shrink, 1000)
    entry, _ = store.get("activations", KEY, ARRAY.shape, "float32", _write)
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
