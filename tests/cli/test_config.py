from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from automl_tl.cli.config import SearchOptions, from_file, from_flags

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_says_what_flags_say(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        """
        data = "photos"
        study = "flowers"
        trials = 20
        time = "30m"
        target = 1
        backbone = "torch/*"
        metric = "macro_f1"
        seed = 3
        workers = 2
        device = "cpu"
        engine = "local"
        storage = "sqlite:///x.db"
        [weights]
        "torch/tiny" = "none"
        [set]
        dropout = 0.2
        learning_rate = "1e-4..1e-2"
        batch_size = [16, 32]
        [[first]]
        optimizer = "sgd"
        head_units = 128
        [[first]]
        depth = 0.5
        """
    )
    flags = from_flags(
        data="photos",
        study="flowers",
        trials=20,
        time="30m",
        target=1.0,
        backbone=["torch/*"],
        metric="macro_f1",
        seed=3,
        workers=2,
        device="cpu",
        engine="local",
        storage="sqlite:///x.db",
        weights=["torch/tiny=none"],
        set_=["dropout=0.2", "learning_rate=1e-4..1e-2", "batch_size=16,32"],
    )
    first = ({"optimizer": "sgd", "head_units": 128}, {"depth": 0.5})
    assert from_file(path) == replace(flags, first=first)
    assert flags.time == 1800
    assert flags.set["learning_rate"] == {"low": 1e-4, "high": 1e-2}


def test_flags_win_over_the_file() -> None:
    file = SearchOptions(
        data="a", trials=5, seed=1, backbone=("x",), weights={"k": "none"}, set={"a": 1, "b": 2}
    )
    flags = SearchOptions(trials=9, seed=0, backbone=("y", "z"), set={"b": 3})
    merged = flags.over(file)
    assert merged == SearchOptions(
        data="a",
        trials=9,
        seed=0,
        backbone=("y", "z"),
        weights={"k": "none"},
        set={"a": 1, "b": 3},
    )


def test_a_byte_order_mark_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xef\xbb\xbftrials = 3\n")
    assert from_file(path).trials == 3


def test_names_may_be_written_as_the_flags_are(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('trial-timeout = "5m"\nworkers_per_device = 2\n')
    options = from_file(path)
    assert (options.trial_timeout, options.workers_per_device) == (300, 2)
