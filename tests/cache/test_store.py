from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from automl_tl.cache import contents
from automl_tl.cache.store import Store
from automl_tl.errors import CacheError

if TYPE_CHECKING:
    from pathlib import Path

KEY = {"data": "abc", "size": 32}


def age(store: Store, seconds: float) -> None:
    """Make all entries look unused for some time."""
    for entry in store.entries():
        then = time.time() - seconds
        os.utime(entry.path.parent / "meta.json", (then, then))


def fill(store: Store, key: dict[str, object], value: int, seconds: float = 1.0, rows: int = 10):
    with store.lock("things", key):
        partial = store.begin("things", key, (rows, 4), "float32")
        array = partial.array()
        array[:] = value
        array.flush()
        return partial.commit({"note": "x"}, seconds)


def test_an_entry_is_found_by_a_second_process_view(tmp_path: Path) -> None:
    fill(Store(tmp_path), KEY, 7)
    entry = Store(tmp_path).find("things", KEY)
    assert entry is not None
    assert entry.array().tolist() == [[7.0] * 4] * 10
    assert entry.meta["note"] == "x"
    assert Store(tmp_path).find("things", {**KEY, "size": 33}) is None


def test_one_flipped_byte_is_noticed_and_the_entry_computed_again(tmp_path: Path) -> None:
    entry = fill(Store(tmp_path), KEY, 7)
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    store = Store(tmp_path)
    assert store.find("things", KEY) is None
    assert not entry.path.exists()

    def again(path: Path) -> None:
        np.load(path, mmap_mode="r+")[:] = 8

    found, computed = store.get("things", KEY, (10, 4), "float32", again)
    assert computed
    assert found.array()[0, 0] == 8


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("things", KEY, (10, 4), "float32", broken)
    assert store.entries() == []
    assert list((tmp_path / "partial").iterdir()) == []


def killed_while_filling(root: Path, key: dict[str, object]) -> int:
    """Return the exit code of a process that is killed."""
    script = """
import json, os, signal, sys
from pathlib import Path
from automl_tl.cache.store import Store
store, key = Store(Path(sys.argv[1])), json.loads(sys.argv[2])
with store.lock("things", key):
    store.begin("things", key, (4,), "float32")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    return subprocess.run([sys.executable, "-c", script, str(root), json.dumps(key)]).returncode


def test_a_killed_fill_is_started_again_and_its_lock_is_free(tmp_path: Path) -> None:
    assert killed_while_filling(tmp_path, {"k": 1}) < 0
    assert len(list((tmp_path / "partial").iterdir())) == 1
    started = time.monotonic()
    entry, computed = Store(tmp_path).get("things", {"k": 1}, (4,), "float32", lambda path: None)
    assert computed
    assert entry.array().tolist() == [0, 0, 0, 0]
    assert time.monotonic() - started < 5


def test_others_wait_for_the_one_that_fills(tmp_path: Path) -> None:
    script = """
import sys, time, numpy as np
from pathlib import Path
from automl_tl.cache.store import Store
def slow(path):
    time.sleep(0.5)
    np.load(path, mmap_mode="r+")[:] = 5
print(Store(Path(sys.argv[1])).get("things", {"k": 1}, (4,), "float32", slow)[1])
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = sorted(process.communicate()[0].decode().strip() for process in both)
    assert said == ["False", "True"]


def test_the_bound_evicts_what_saves_the_fewest_seconds_per_byte(tmp_path: Path) -> None:
    for number, seconds in enumerate((5.0, 0.1, 3.0)):
        fill(Store(tmp_path), {"n": number}, number, seconds)
    size = Store(tmp_path).entries()[0].meta["bytes"]
    age(Store(tmp_path), 3600)
    store = Store(tmp_path, max_bytes=size * 2)
    assert [entry.meta["key"]["n"] for entry in store.shrink()] == [1]
    assert {entry.meta["key"]["n"] for entry in store.entries()} == {0, 2}


def test_what_was_not_used_for_weeks_is_worth_less(tmp_path: Path) -> None:
    old = fill(Store(tmp_path), {"n": 0}, 0, seconds=3.0)
    fill(Store(tmp_path), {"n": 1}, 1, seconds=2.0)
    age(Store(tmp_path), 3600)
    month = time.time() - 30 * 86400
    os.utime(old.path.parent / "meta.json", (month, month))
    store = Store(tmp_path, max_bytes=old.meta["bytes"])
    assert [entry.meta["key"]["n"] for entry in store.shrink()] == [0]


def test_what_any_process_used_lately_is_not_evicted(tmp_path: Path) -> None:
    used = fill(Store(tmp_path), {"n": 0}, 0, seconds=0.0, rows=1)
    fill(Store(tmp_path), {"n": 1}, 1, seconds=1.0, rows=1)
    age(Store(tmp_path), 3600)
    assert Store(tmp_path).touch(used.path)
    store = Store(tmp_path, max_bytes=used.meta["bytes"])
    assert [entry.meta["key"]["n"] for entry in store.shrink()] == [1]
    assert not store.touch(tmp_path / "nowhere" / "data.npy")


def test_what_a_process_reads_for_hours_is_in_use_until_it_lets_go(tmp_path: Path) -> None:
    size = fill(Store(tmp_path), KEY, 7).meta["bytes"]
    other = fill(Store(tmp_path), {"n": 1}, 1)
    full = Store(tmp_path, max_bytes=size // 2)
    reader = Store(tmp_path)
    assert reader.find("things", KEY)
    assert reader.touch(other.path)
    age(reader, 3600)
    reader.hold()
    assert full.shrink() == []
    finished = Store(tmp_path)
    assert finished.find("things", KEY)
    age(finished, 3600)
    finished.let_go()
    finished.hold()
    assert len(full.shrink()) == 2


def test_the_bound_holds_even_when_everything_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=1000)
    fill(store, {"n": 0}, 0, rows=40)
    with pytest.raises(CacheError, match="in use and has no room for 640 B more"):
        store.begin("things", {"n": 1}, (40, 4), "float32")
    assert store.price(640) == math.inf
    assert store.price(100) == 0.0
    age(store, 3600)
    assert 0 < store.price(640) < math.inf


def test_a_waiting_process_is_asked_and_may_give_up(tmp_path: Path) -> None:
    class GivenUp(Exception):
        pass

    def waiting() -> None:
        raise GivenUp

    store = Store(tmp_path)
    with (
        store.lock("things", KEY),
        pytest.raises(GivenUp),
        Store(tmp_path).lock("things", KEY, waiting),
    ):
        raise AssertionError("it was locked")


def test_an_array_beyond_the_bound_or_the_disk_is_one_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=1000)
    with pytest.raises(CacheError, match="exceeds the cache's bound of 1000 B"):
        store.begin("things", KEY, (1000,), "float32")
    with pytest.raises(CacheError, match=r"No room for .* run `automl-tl cache clear`"):
        Store(tmp_path, max_bytes=1 << 62).begin("things", KEY, (1 << 50,), "uint8")


def test_facts_are_remembered_and_mended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    calls: list[int] = []

    def make() -> dict[str, int]:
        calls.append(1)
        return {"a": 1}

    assert store.remember("facts", KEY, make) == store.remember("facts", KEY, make) == {"a": 1}
    assert len(calls) == 1
    next((tmp_path / "facts").iterdir()).write_text("{broken")
    assert store.remember("facts", KEY, make) == {"a": 1}
    assert len(calls) == 2


def test_of_many_that_ask_one_makes_it(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        time.sleep(0.3)
        return len(calls)

    def ask() -> int:
        return int(Store(tmp_path).remember("facts", KEY, make))

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(ask) for _ in range(4)]] == [1] * 4
    assert calls == [1]


def test_a_value_that_could_not_be_made_holds_nobody_up(tmp_path: Path) -> None:
    def fail() -> int:
        raise CacheError("no")

    with pytest.raises(CacheError):
        Store(tmp_path).remember("facts", KEY, fail)
    assert Store(tmp_path).remember("facts", KEY, lambda: 3) == 3


def test_usage_and_clear(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = fill(store, KEY, 1, seconds=2.5)
    assert contents.usage(store.root) == [
        {"kind": "things", "entries": 1, "bytes": entry.meta["bytes"], "seconds": 2.5}
    ]
    assert contents.clear(store.root) == entry.meta["bytes"]
    assert contents.usage(store.root) == []


def test_what_killed_fills_left_goes_and_what_is_being_filled_counts(tmp_path: Path) -> None:
    for number in range(2):  # the second fill finds what the first one left
        assert killed_while_filling(tmp_path, {"dead": number}) < 0
    store = Store(tmp_path, max_bytes=900)
    (row,) = contents.usage(store.root)
    assert (row["kind"], row["entries"], row["bytes"]) == ("partial", 1, 144)
    with store.lock("things", KEY):
        alive = store.begin("things", KEY, (100, 4), "uint8")
        (row,) = contents.usage(store.root)
        assert (row["entries"], row["bytes"]) == (1, 528)
        store.shrink()
        assert contents.clear(store.root) == 0
        with pytest.raises(CacheError, match="The cache holds 528 B that is in use"):
            store.begin("things", {"n": 1}, (100, 4), "uint8")
        assert alive.commit({}, 1.0).array().shape == (100, 4)


def test_a_damaged_meta_file_is_no_event(tmp_path: Path) -> None:
    entry = fill(Store(tmp_path), KEY, 1)
    (entry.path.parent / "meta.json").write_text(json.dumps({"kind": "things"}))
    assert Store(tmp_path).find("things", KEY) is None


def test_an_unwritable_root_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CacheError, match="set AUTOML_TL_CACHE"):
        Store(file / "below")
