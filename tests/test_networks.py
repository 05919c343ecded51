"""Which backbones a search takes, and what it says of those that it cannot have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from automl_tl.cache.store import Store
from automl_tl.errors import WeightsError
from automl_tl.networks import choose_backbones, network_spec
from automl_tl.plugins import get_plugins
from automl_tl.specs import Backbone

if TYPE_CHECKING:
    from pathlib import Path


def test_other_weights_of_the_same_size_and_time_are_noticed(tmp_path: Path) -> None:
    backbone, store = get_plugins().backbone("torch/tiny"), Store(tmp_path / "cache")
    path = tmp_path / "w.safetensors"

    def write(target: Path, content: bytes) -> None:
        target.write_bytes(content)
        os.utime(target, (1, 1))

    def identity() -> str:
        return network_spec(backbone, str(path), 32, 0, store).weights_id

    write(path, b"a" * 100)
    found = [identity(), identity()]
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # as coarse as the kernel's clock
        write(path, b"b" * 100)
    found.append(identity())
    write(tmp_path / "other", b"c" * 100)
    (tmp_path / "other").replace(path)
    found.append(identity())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_device_or_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    backbone, store = get_plugins().backbone("torch/tiny"), Store(tmp_path / "cache")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(WeightsError, match=rf"torch/tiny: expected a weights file, .*{path}:"):
            network_spec(backbone, str(path), 32, 0, store)


def choose(*patterns: str) -> tuple[list[str], list[str]]:
    said: list[str] = []
    return list(choose_backbones(patterns, {}, False, said.append)), said


def test_a_few_missing_backbones_are_named_one_by_one_and_many_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing can be reached
    chosen, said = choose("torch/tiny", "torch/squeezenet*")
    assert chosen == ["torch/tiny"]
    for sentence, version in zip(said, ("1_0", "1_1"), strict=True):
        assert sentence.startswith(
            f"torch/squeezenet{version}: the weights file squeezenet{version}"
        )
        assert f"is not in {tmp_path / 'hub' / 'checkpoints'}" in sentence
        assert f"use --weights torch/squeezenet{version}=PATH or =none. The search" in sentence
    chosen, (said_at_once,) = choose("torch/tiny", "torch/resnet*")
    assert chosen == ["torch/tiny"]
    assert said_at_once.startswith("5 of the backbones are left out, because their weights are not")
    assert "torch/resnet18 (resnet18-" in said_at_once
    assert str(tmp_path / "hub" / "checkpoints") in said_at_once


def test_only_a_backbone_that_is_named_may_start_at_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = Backbone("bare", "torch", load=lambda weights: None, input_size=32, parameters=1)
    monkeypatch.setitem(get_plugins().backbones, bare.key, bare)
    for pattern in ("torch/bare", "bare"):
        chosen, (said,) = choose(pattern, "torch/tiny")
        assert chosen == ["torch/bare", "torch/tiny"]
        assert said.startswith("torch/bare was published without weights, so it starts from random")
    chosen, (said,) = choose("torch/ba*", "torch/tiny")
    assert chosen == ["torch/tiny"]
    assert "torch/bare has no published weights" in said
