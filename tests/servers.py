"""Database servers of our own, on free ports, as a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60.0


class Server:
    """A running server.

    Attributes:
        url: What ``--storage`` takes.
    """

    url: str

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it at once, as a crash would."""
        raise NotImplementedError

    def restart_after(self, seconds: float) -> None:
        self.stop()
        time.sleep(seconds)
        self.start()


class PostgreSQL(Server):
    """See ``Server``."""

    def __init__(self, folder: Path, user: str | None) -> None:
        found = _find("initdb", "/usr/lib/postgresql/*/bin")  # Debian keeps it off the PATH
        if found is None:
            pytest.skip("PostgreSQL's server programs are not installed on this machine")
        self._programs, self._folder, self._user = found.parent, folder, user
        self._port = _free_port()
        self.url = f"postgresql+psycopg://tester@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", folder, "-U", "tester", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        self._control("-l", self._folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: object) -> None:
        self._run("pg_ctl", "-D", self._folder, "-w", *arguments)

    def _run(self, program: str, *arguments: object) -> None:
        _run([self._programs / program, *arguments], self._user)


class MySQL(Server):
    """See ``Server``. MariaDB's server, which is what Debian has of MySQL."""

    def __init__(self, folder: Path, user: str | None) -> None:
        daemon = _find("mariadbd", "/usr/sbin")
        install = _find("mariadb-install-db", "/usr/bin")
        if daemon is None or install is None:
            pytest.skip("MariaDB's server programs are not installed on this machine")
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        data = [f"--datadir={folder}", *([f"--user={user}"] if user else ())]
        first = folder.with_name("first.sql")  # done at every start
        first.write_text(
            "CREATE DATABASE IF NOT EXISTS studies CHARACTER SET utf8mb4;\n"
            "CREATE USER IF NOT EXISTS tester IDENTIFIED BY 'tested';\n"
            "GRANT ALL ON studies.* TO tester;\n"
        )
        network = [f"--port={self._port}", "--bind-address=127.0.0.1"]
        files = [f"--socket={folder}/socket", f"--init-file={first}"]
        self._command = [daemon, "--no-defaults", *data, *network, *files]
        self.url = f"mysql+pymysql://tester:tested@127.0.0.1:{self._port}/studies"
        _run([install, "--no-defaults", *data, "--skip-test-db"], None)

    def start(self) -> None:
        self._process = subprocess.Popen(
            list(map(str, self._command)), cwd="/", stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.1)
        raise TimeoutError("MariaDB does not answer")

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_SECONDS)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with _running(PostgreSQL, "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    with _running(MySQL, "mysql") as server:
        yield server


@pytest.fixture(params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


@contextmanager
def _running(kind: type[PostgreSQL | MySQL], owner: str) -> Iterator[Server]:
    # Not below pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(
        prefix=f"automl-tl-{owner}-", ignore_cleanup_errors=True
    ) as at:
        user = None
        if os.geteuid() == 0:
            user = owner if owner in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
            shutil.chown(at, user)
        server = kind(Path(at) / "data", user)
        server.start()
        yield server
        server.stop()


def _find(program: str, places: str) -> Path | None:
    if found := shutil.which(program):
        return Path(found)
    found_there = sorted(Path("/").glob(f"{places}/{program}".lstrip("/")))
    return found_there[-1] if found_there else None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _run(command: list[object], user: str | None) -> None:
    subprocess.run(
        list(map(str, command)),
        check=True,
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
