"""A PostgreSQL server of our own, on a free port, as a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def _programs() -> Path | None:
    """Return the folder of initdb and pg_ctl; Debian keeps them off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


class Server:
    """A running server.

    Attributes:
        url: What ``--storage`` takes.
    """

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://tester@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", folder, "-U", "tester", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        self._control("-l", self._folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def restart_after(self, seconds: float) -> None:
        self.stop()
        time.sleep(seconds)
        self.start()

    def _control(self, *arguments: object) -> None:
        self._run("pg_ctl", "-D", self._folder, "-w", *arguments)

    def _run(self, program: str, *arguments: object) -> None:
        command = [self._programs / program, *map(str, arguments)]
        subprocess.run(
            command, check=True, user=self._user, cwd="/", stdout=subprocess.DEVNULL, timeout=60
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed on this machine")
    # Not below pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(
        prefix="automl-tl-postgres-", ignore_cleanup_errors=True
    ) as at:
        user = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(at, user)
        server = Server(programs, Path(at) / "data", user)
        server.start()
        yield server
        server.stop()
