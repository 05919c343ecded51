"""Weights from a URL: how far they are, checked before they are kept, given up in time."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from automl_tl import downloads
from automl_tl.errors import WeightsError
from automl_tl.networks import weights_file
from automl_tl.specs import Backbone, PretrainedWeights
from tests.webserver import WebServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 1500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Heard = list[tuple[str, int, int, str]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "EVERY", 0.02)
    with serving() as server:
        server.files["/net.pth"] = CONTENT
        yield server


def net(weights: PretrainedWeights | None) -> Backbone:
    return Backbone("net", "torch", lambda _: None, 32, 10, pretrained=weights)


def at(path: Path, url: str, sha256: str | None = SHA256) -> PretrainedWeights:
    return PretrainedWeights("imagenet", lambda: path, url, sha256=sha256)


def fetch(
    weights: PretrainedWeights | None,
    heard: Heard | None = None,
    until: float = float("inf"),
    setting: str | None = None,
) -> str:
    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        if heard is not None:
            heard.append((what, done, total, unit))

    return weights_file(net(weights), setting, until, stage)


def test_what_a_killed_download_left_goes_with_the_next_one(
    tmp_path: Path, server: WebServer
) -> None:
    halves = [tmp_path / f".net[1].pth.{digit * 32}.pth" for digit in "ab"]
    abandoned, alive = halves
    for left in halves:
        left.write_bytes(b"half")
    os.utime(abandoned, (0, time.time() - 2 * 3600))
    downloads.fetch(f"{server.url}/net.pth", tmp_path / "net[1].pth")
    assert {path.name for path in tmp_path.iterdir()} == {"net[1].pth", alive.name}


def test_bytes_are_told_with_the_servers_size(tmp_path: Path, server: WebServer) -> None:
    path, heard = tmp_path / "folder" / "net.pth", Heard()
    server.halfway.clear()

    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        heard.append((what, done, total, unit))
        if done == len(CONTENT) // 2:
            server.halfway.set()

    weights = at(path, f"{server.url}/net.pth")
    assert weights_file(net(weights), None, stage=stage) == str(path)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["net.pth"]
    assert {(what, unit) for what, _, _, unit in heard} == {("downloading net.pth", "bytes")}
    measured = [done for _, done, total, _ in heard[:-1] if total == len(CONTENT)]
    assert measured == sorted(measured) and len(CONTENT) // 2 in measured
    assert heard[-1][1:3] == (1, 1)
    heard.clear()
    fetch(weights, heard)
    assert heard == [] and server.asked == [("GET", "/net.pth")]


@pytest.mark.parametrize("digits", [64, 8])
def test_a_wrong_hash_is_one_sentence_and_keeps_nothing(
    tmp_path: Path, server: WebServer, digits: int
) -> None:
    path, other = tmp_path / "net.pth", "0" * digits
    with pytest.raises(WeightsError) as caught:
        fetch(at(path, f"{server.url}/net.pth", other))
    assert str(caught.value) == (
        f"torch/net: the weights file net.pth is not in {tmp_path} and cannot be downloaded "
        f"(expected a file with SHA256 {other}, got one with {SHA256[:digits]}, which is not "
        "kept): put it there, or use --weights torch/net=PATH or =none."
    )
    assert list(tmp_path.iterdir()) == []
    assert fetch(at(path, f"{server.url}/net.pth", SHA256[:digits])) == str(path)


def test_an_old_kind_of_hash_is_checked_too(tmp_path: Path, server: WebServer) -> None:
    path, url = tmp_path / "net.h5", f"{server.url}/net.pth"
    with pytest.raises(WeightsError, match="expected a file with MD5 00"):
        fetch(PretrainedWeights("imagenet", lambda: path, url, md5="0" * 32))
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert fetch(PretrainedWeights("imagenet", lambda: path, url, md5=md5)) == str(path)


def test_what_does_not_arrive_whole_is_not_kept(tmp_path: Path, server: WebServer) -> None:
    path, heard = tmp_path / "net.pth", Heard()
    server.short = 7
    with pytest.raises(WeightsError, match="the connection broke after 383,993 of 384,000 bytes"):
        fetch(at(path, f"{server.url}/net.pth", None), heard)
    with pytest.raises(WeightsError, match=r"torch/net: .*cannot be downloaded \(HTTP Error 404"):
        fetch(at(path, f"{server.url}/absent.pth"), heard)
    with pytest.raises(WeightsError, match="Connection refused"):
        fetch(at(path, "http://127.0.0.1:9/net.pth"), heard)
    assert list(tmp_path.iterdir()) == []
    assert heard[-1] == ("downloading net.pth", 1, 1, "bytes")
    count = len(heard)
    time.sleep(0.1)
    assert len(heard) == count


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("3", 3),
        (" 3, 3 ,3", 3),
        ("0", 0),
        *((text, None) for text in ("", "3, 5", "-3", "many", "3.0", "33, 3", "9" * 5000)),
    ],
)
def test_a_length_is_a_number_or_unknown(header: str, length: int | None) -> None:
    assert downloads._length(header) == length


@pytest.mark.parametrize("said", ["384000, 384000", "some"])
def test_a_length_that_a_proxy_repeats_or_garbles(
    tmp_path: Path, server: WebServer, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "length", lambda _: said)
    downloads.fetch(f"{server.url}/net.pth", tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_download_is_given_up_when_the_time_is_up(tmp_path: Path, server: WebServer) -> None:
    path = tmp_path / "net.pth"
    server.halfway.clear()
    started = time.monotonic()
    with pytest.raises(WeightsError, match="in half of the time: give more with --time"):
        fetch(at(path, f"{server.url}/net.pth"), until=started + 0.4)
    assert 0.3 < time.monotonic() - started < 3
    server.halfway.set()
    deadline = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match="in half of the time"):
        fetch(at(path, f"{server.url}/net.pth"), until=started)


def test_a_url_without_a_path_goes_to_the_cache(
    tmp_path: Path, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path))
    url = f"{server.url}/net.pth"
    expected = tmp_path / "downloads" / f"{SHA256[:16]}-net.pth"
    assert fetch(PretrainedWeights("imagenet", url=url, sha256=SHA256)) == str(expected)
    assert expected.read_bytes() == CONTENT
    typed = f"{url}#sha256={SHA256.upper()}"
    assert fetch(None, setting=typed) == str(expected)
    assert server.asked == [("GET", "/net.pth")]
    with pytest.raises(WeightsError, match="--weights torch/net: expected an address that ends in"):
        fetch(None, setting=url)
    with pytest.raises(WeightsError, match=f"SHA256 {'1' * 64}, got one with {SHA256}"):
        fetch(None, setting=f"{url}#sha256={'1' * 64}")


def test_a_file_that_should_have_come_with_its_plugin_is_missed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"net\.pth is not in .*have come with its plugin"):
        fetch(PretrainedWeights("imagenet", lambda: tmp_path / "net.pth"))
