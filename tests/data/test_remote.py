"""Named data sets on a server."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import time
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl import downloads
from automl_tl.data import remote
from automl_tl.data.remote import RemoteArchive
from automl_tl.data.sources import open_data
from automl_tl.downloads import fetch, from_url
from automl_tl.errors import DataError
from automl_tl.specs import DatasetSpec, dataset_folder
from automl_tl.stages import silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Site:
    """One file on a server that may break off, and what it was asked for."""

    body: bytes
    url: str = ""
    tag: str = '"one"'
    breaks: int = 0
    pause: float = 0.0
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classes_folder: Path) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as out:
        for image in sorted(classes_folder.rglob("*.png")):
            out.write(image, f"pets/{image.relative_to(classes_folder).as_posix()}")
        out.writestr("pets/LICENSE.txt", "free")
    site = Site(path.read_bytes())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith("/pets.zip"):
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            site.ranges.append(asked)
            start = 0
            if asked and self.headers.get("If-Range") == site.tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            rest = site.body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            if site.tag:
                self.send_header("ETag", site.tag)
            self.end_headers()
            if site.breaks:
                site.breaks -= 1
                rest = rest[: len(rest) // 2]
            half = len(rest) // 2
            self.wfile.write(rest[:half])
            self.wfile.flush()
            time.sleep(site.pause)
            self.wfile.write(rest[half:])

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_port}/pets.zip"
        yield site
        server.shutdown()


def pets(site: Site, sha256: str | None = None) -> RemoteArchive:
    return RemoteArchive("pets", site.url, sha256)


def refusal(archive: RemoteArchive, cache: Path) -> str:
    with pytest.raises(DataError) as error:
        remote.load(archive, cache)
    return str(error.value)


def test_it_is_downloaded_and_unpacked_once(site: Site, tmp_path: Path) -> None:
    digest = hashlib.sha256(site.body).hexdigest()
    index = remote.load(pets(site, digest), tmp_path)
    assert (index.name, index.source, index.classes) == ("pets", "pets", ("cat", "dog"))
    assert [item.name for item in index.items][:2] == ["cat/0.png", "cat/1.png"]
    assert remote.load(pets(site, digest), tmp_path) == index
    assert len(site.ranges) == 1
    left = sorted(path.name for path in (tmp_path / "datasets" / "pets").iterdir())
    assert left == [".lock", "images"]


@pytest.mark.parametrize("tag", ['"one"', "", 'W/"one"'])
def test_a_broken_connection_is_taken_up_where_the_file_is_known_to_be_the_same(
    tag: str, site: Site, tmp_path: Path
) -> None:
    site.breaks, site.tag = 2, tag
    fetch(site.url, tmp_path / "pets.zip")
    assert (tmp_path / "pets.zip").read_bytes() == site.body
    half = len(site.body) // 2
    resumed = [f"bytes={half}-", f"bytes={half + (len(site.body) - half) // 2}-"]
    assert site.ranges == ([None, *resumed] if tag == '"one"' else [None] * 3)


def test_what_came_over_two_connections_is_checked_as_a_whole(site: Site, tmp_path: Path) -> None:
    site.breaks, digest = 1, hashlib.sha256(site.body).hexdigest()
    path, endless = tmp_path / "folder" / "pets.zip", float("inf")
    assert from_url(site.url, path, ("sha256", digest), silent, endless).read_bytes() == site.body
    site.breaks = 1
    with pytest.raises(OSError, match=f"SHA256 {'0' * 64}, got one with {digest}, which is not"):
        from_url(site.url, path, ("sha256", "0" * 64), silent, endless)
    assert [each is None for each in site.ranges] == [True, False] * 2
    assert [each.name for each in path.parent.iterdir()] == ["pets.zip"]
    assert path.read_bytes() == site.body


def test_a_connection_that_always_breaks_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.breaks = 99
    message = refusal(pets(site), tmp_path)
    assert "pets cannot be downloaded" in message and "the connection broke after" in message
    assert [path.name for path in (tmp_path / "datasets" / "pets").iterdir()] == [".lock"]


def test_offline_it_says_which_file_belongs_where(tmp_path: Path) -> None:
    message = refusal(RemoteArchive("pets", "http://127.0.0.1:9/pets.zip"), tmp_path)
    place = tmp_path / "datasets" / "pets"
    assert message.startswith("pets cannot be downloaded from http://127.0.0.1:9/pets.zip (")
    assert message.endswith(
        f"put pets.zip into {place}, or pass a local folder of the images as DATA."
    )


def test_a_file_that_is_not_there_is_asked_for_once(site: Site, tmp_path: Path) -> None:
    gone = RemoteArchive("pets", site.url.replace("pets", "gone"))
    assert "(HTTP Error 404: Not Found)" in refusal(gone, tmp_path)
    assert site.ranges == []


def test_a_file_put_there_by_hand_is_used(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "datasets" / "pets"
    place.mkdir(parents=True)
    (place / "pets.zip").write_bytes(site.body)
    offline = RemoteArchive("pets", "http://127.0.0.1:9/pets.zip")
    assert len(remote.load(offline, tmp_path).items) == 8
    (place / "images").rename(place / "moved")
    (place / "pets.zip").write_bytes(b"something else")
    message = refusal(offline, tmp_path)
    assert f"{place / 'pets.zip.sha256'} remembers the SHA-256" in message
    assert (place / "pets.zip").is_file(), "what a person put there is theirs"


def test_another_file_than_the_published_one_is_refused(site: Site, tmp_path: Path) -> None:
    assert "its publisher names the SHA-256 0000" in refusal(pets(site, "0" * 64), tmp_path)
    assert not list((tmp_path / "datasets" / "pets").glob("pets.zip*"))


def test_without_a_published_hash_the_first_download_counts(site: Site, tmp_path: Path) -> None:
    remote.load(pets(site), tmp_path)
    place = tmp_path / "datasets" / "pets"
    (place / "images").rename(place / "moved")
    first, site.body = site.body, site.body + b"\0"
    message = refusal(pets(site), tmp_path)
    assert hashlib.sha256(first).hexdigest() in message
    assert hashlib.sha256(site.body).hexdigest() in message
    site.body = first
    assert len(remote.load(pets(site), tmp_path).items) == 8


def test_a_damaged_archive_is_neither_kept_nor_remembered(site: Site, tmp_path: Path) -> None:
    whole, site.body = site.body, site.body[:-40]
    refusal(pets(site), tmp_path)
    site.body = whole
    assert len(remote.load(pets(site), tmp_path).items) == 8


def test_the_download_is_told_in_bytes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "EVERY", 0.02)
    site.pause = 0.5
    heard: list[tuple[str, int, int, str]] = []

    def stage(what: str, done: int, total: int, unit: str = "images") -> None:
        heard.append((what, done, total, unit))

    size = len(site.body)
    spec = DatasetSpec("pets", lambda cache: remote.load(pets(site), cache), download_bytes=size)
    open_data("pets", tmp_path, {"pets": spec}, stage)
    assert {unit for *_, unit in heard} == {"bytes"}
    assert ("downloading pets", size // 2, size, "bytes") in heard
    ended = {what for what, done, total, _ in heard if done == total == 1}
    assert ended == {what for what, *_ in heard}
    heard.clear()
    open_data("pets", tmp_path, {"pets": spec}, stage)
    assert heard == []


def test_the_download_is_given_up_when_the_time_is_up(site: Site, tmp_path: Path) -> None:
    site.pause = 5
    load = functools.partial(remote.load, pets(site))
    spec = DatasetSpec("pets", load, download_bytes=len(site.body))
    started = time.monotonic()
    with pytest.raises(DataError) as error:
        open_data("pets", tmp_path, {"pets": spec}, until=started + 0.4)
    assert str(error.value) == (
        "pets cannot be downloaded and unpacked in half of the time: give more with --time."
    )
    assert time.monotonic() - started < 4
    assert not (tmp_path / "datasets" / "pets" / "images").exists()


def test_what_is_here_needs_no_time(site: Site, tmp_path: Path) -> None:
    load = functools.partial(remote.load, pets(site))
    spec = DatasetSpec("pets", load, download_bytes=len(site.body))
    index = open_data("pets", tmp_path, {"pets": spec})
    assert open_data("pets", tmp_path, {"pets": spec}, until=time.monotonic()) == index


def test_a_download_that_was_killed_is_not_left_behind(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "datasets" / "pets"
    place.mkdir(parents=True)
    (place / f".pets.zip.{'0' * 32}").write_bytes(b"half")
    remote.load(pets(site), tmp_path)
    assert sorted(path.name for path in place.glob("*pets.zip*")) == ["pets.zip.sha256"]


def test_a_name_with_a_slash_is_one_folder(tmp_path: Path) -> None:
    assert dataset_folder("a/b", tmp_path) == tmp_path / "datasets" / "a-b"
