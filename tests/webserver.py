"""A web server on this machine, for what is downloaded."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class WebServer(http.server.ThreadingHTTPServer):
    """Serves files by their path.

    Attributes:
        files: Path to content.
        headers: Path to further headers.
        redirects: Path to another path.
        asked: Methods and paths, in order.
        pause: Set it to let a file end halfway until it is cleared.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.halfway = threading.Event()
        self.halfway.set()
        self.short = 0

    def length(self, content: int) -> str:
        """Return what is said of a content of so many bytes."""
        return str(content)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        content = self._begin()
        if content is None:
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        self.server.halfway.wait(30)
        self.wfile.write(content[half : len(content) - self.server.short])

    def _begin(self) -> bytes | None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path))
        if target := self.server.redirects.get(path):
            self.send_response(302)
            self.send_header("Location", target)
            self._end(path, 0)
            return None
        content = self.server.files.get(path)
        self.send_response(404 if content is None else 200)
        self._end(path, len(content or b""))
        return content

    def _end(self, path: str, length: int) -> None:
        self.send_header("Content-Length", self.server.length(length))
        for name, value in self.server.headers.get(path, {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving() -> Iterator[WebServer]:
    """Serve until the context ends."""
    with WebServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.halfway.set()
        server.shutdown()
