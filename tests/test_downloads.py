"""How far a download is, told by the file that grows."""

from __future__ import annotations

import http.server
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl import downloads
from automl_tl.errors import WeightsError
from automl_tl.networks import weights_file
from automl_tl.specs import Backbone, PretrainedWeights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 300_000
Heard = list[tuple[str, int, int, str]]


class Server(http.server.BaseHTTPRequestHandler):
    """Tells a size and gives nothing."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/net.pth"
        server.shutdown()


class Host:
    """Downloads as the frameworks do: beside the file, in pieces, renamed at the end."""

    def __init__(self, path: Path, fails: bool = False) -> None:
        self._path, self._fails = path, fails

    def download(self, key: str) -> Path:
        aside = self._path.with_name(f"{self._path.name}.1f2e.partial")
        for piece in range(3):
            with aside.open("ab") as file:
                file.write(bytes(SIZE // 3))
            time.sleep(0.1)
            if self._fails and piece:
                aside.unlink()
                raise WeightsError("no route to host")
        return aside.replace(self._path)

    def close(self) -> None: ...


def net(path: Path, url: str | None) -> Backbone:
    weights = PretrainedWeights("imagenet", lambda: path, url)
    return Backbone("net", "torch", lambda _: None, 32, 10, pretrained=weights)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setattr(downloads, "EVERY", 0.02)
    return []


def fetch(backbone: Backbone, path: Path, heard: Heard, fails: bool = False) -> str:
    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        heard.append((what, done, total, unit))

    host: Any = Host(path, fails)
    return weights_file(backbone, None, lambda _: host, stage=stage)


def test_bytes_are_told_with_the_servers_size(tmp_path: Path, url: str, heard: Heard) -> None:
    path = tmp_path / "net.pth"
    (tmp_path / "net.pth.old").write_bytes(bytes(7))  # left by an earlier attempt
    assert fetch(net(path, url), path, heard) == str(path)
    assert {(what, unit) for what, _, _, unit in heard} == {("downloading net.pth", "bytes")}
    measured = [(done, total) for _, done, total, _ in heard[:-1] if total]
    assert {total for _, total in measured} == {SIZE}
    grown = [done for done, _ in measured]
    assert grown == sorted(grown) and {SIZE // 3, 2 * SIZE // 3} <= set(grown)
    assert heard[-1][1:3] == (1, 1)
    heard.clear()
    fetch(net(path, url), path, heard)
    assert heard == []


def test_without_a_size_there_is_no_total(tmp_path: Path, heard: Heard) -> None:
    path = tmp_path / "net.pth"
    fetch(net(path, "http://127.0.0.1:9/net.pth"), path, heard)
    assert {total for _, _, total, _ in heard[:-1]} == {0}
    assert max(done for _, done, _, _ in heard) >= SIZE // 3


def test_a_download_that_fails_ends_its_bar(tmp_path: Path, url: str, heard: Heard) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(WeightsError, match="no route to host"):
        fetch(net(path, url), path, heard, fails=True)
    assert heard[-1] == ("downloading net.pth", 1, 1, "bytes")
    count = len(heard)
    time.sleep(0.1)
    assert len(heard) == count
