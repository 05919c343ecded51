"""Weights of Hugging Face repositories, from a server on this machine that answers as theirs."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from typing import TYPE_CHECKING

import pytest

from automl_tl import hub
from automl_tl.errors import PluginError, UsageError, WeightsError
from automl_tl.networks import cached, choose_backbones, weights_file
from automl_tl.plugins import get_plugins
from automl_tl.specs import Backbone, HubFile, PretrainedWeights
from automl_tl.weights import location
from tests.webserver import WebServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"\x08\0\0\0\0\0\0\0{}      "
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/resnet"
NET = PretrainedWeights("imagenet", hub=HubFile(REPO))
PINNED = PretrainedWeights("imagenet", hub=HubFile(REPO, revision=COMMIT))


def net(weights: PretrainedWeights | None) -> Backbone:
    return Backbone("net", "torch", lambda _: None, 32, 10, pretrained=weights)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub" / "models--someone--resnet"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        etag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
        for revision in ("main", COMMIT):
            path = f"/{REPO}/resolve/{revision}/model.safetensors"
            server.files[path] = CONTENT
            server.headers[path] = {"X-Repo-Commit": COMMIT, "ETag": etag}
        yield server


def test_a_file_is_downloaded_once_into_the_hubs_own_cache(server: WebServer, home: Path) -> None:
    assert not cached(net(NET))
    path = weights_file(net(NET), None)
    assert path == str(home / "snapshots" / COMMIT / "model.safetensors")
    assert location(NET).read_bytes() == CONTENT
    assert cached(net(NET)) and cached(net(PINNED))
    count = len(server.asked)
    assert weights_file(net(PINNED), None) == path
    assert weights_file(net(None), f"hf://{REPO}@{COMMIT}") == path
    assert weights_file(net(None), f"hf://{REPO}/model.safetensors") == path
    assert len(server.asked) == count


def test_a_pinned_revision_is_asked_for_by_its_commit(server: WebServer) -> None:
    weights_file(net(PINNED), None)
    assert {path.split("/")[4] for _, path in server.asked if path.startswith(f"/{REPO}")} == {
        COMMIT
    }


@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_had_names_backbone_file_and_option(
    server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        server.files.clear()
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        weights_file(net(NET), None)
    sentence = str(caught.value)
    assert sentence.startswith(
        f"torch/net: the weights file model.safetensors is not in {home / 'snapshots' / 'main'} "
        "and cannot be downloaded ("
    )
    assert sentence.endswith("put it there, or use --weights torch/net=PATH or =none.")
    assert "\n" not in sentence


def test_a_file_that_was_put_there_is_found(home: Path) -> None:
    location(NET).parent.mkdir(parents=True)
    location(NET).write_bytes(CONTENT)
    assert weights_file(net(NET), None) == str(home / "snapshots" / "main" / "model.safetensors")


def test_without_the_package_it_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"huggingface_hub is missing: install automl-tl\[hub\]"):
        weights_file(net(NET), None)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://a/b", HubFile("a/b")),
        ("hf://a/b@v1", HubFile("a/b", revision="v1")),
        ("hf://a/b.c/deep/x.safetensors", HubFile("a/b.c", "deep/x.safetensors")),
        ("hf://a/b/x.safetensors@refs/pr/1", HubFile("a/b", "x.safetensors", "refs/pr/1")),
    ],
)
def test_addresses_are_read_and_written(address: str, expected: HubFile) -> None:
    assert hub.parse(address) == expected
    assert hub.parse(str(expected)) == expected


@pytest.mark.parametrize("address", ["hf://a", "hf://", "hf://a/b/", "hf://a/b@"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="hf://ORGANIZATION/REPOSITORY"):
        hub.parse(address)


def test_only_safetensors_are_taken() -> None:
    with pytest.raises(PluginError, match=r"expected a \.safetensors file .*got x\.bin"):
        HubFile("a/b", "x.bin")
    with pytest.raises(WeightsError, match=r"--weights torch/net: .*got x\.bin"):
        weights_file(net(None), "hf://a/b/x.bin")


def test_weights_that_are_nowhere_are_refused() -> None:
    with pytest.raises(PluginError, match="expected weights imagenet with a path, a url and its"):
        PretrainedWeights("imagenet", url="https://example.org/net.pth")


def test_many_missing_files_of_the_hub_are_named_together(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files.clear()
    named = [dataclasses.replace(net(NET), name=f"net{index}") for index in range(4)]
    more = {**get_plugins().backbones, **{backbone.key: backbone for backbone in named}}
    plugins = dataclasses.replace(get_plugins(), backbones=more)
    monkeypatch.setattr("automl_tl.networks.get_plugins", lambda: plugins)
    said: list[str] = []
    assert list(choose_backbones(["torch/net?", "torch/tiny"], {}, False, said.append)) == [
        "torch/tiny"
    ]
    assert said[0].startswith("4 of the backbones are left out")
    assert f"torch/net0 (hf://{REPO}/model.safetensors@main), torch/net1" in said[0]
    assert said[0].endswith("; give them with --weights KEY=PATH.")
