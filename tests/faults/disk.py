"""A small disk of its own for a test: a tmpfs that only processes in its namespace see."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commandline import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen


class Disk(CommandLine):
    """Runs the command line where ``path`` is a small disk.

    Attributes:
        path: Of the disk, for the commands.
        inside: The same folder, for the test.
    """

    def __init__(self, folder: Path, cache: Path, size: str) -> None:
        super().__init__(folder, cache)
        self.path = folder / "disk"
        self.path.mkdir()
        mount = f"mount -t tmpfs -o size={size} tmpfs {self.path} && echo ready; exec sleep 600"
        try:
            self._holder = subprocess.Popen(
                ["unshare", "-rm", "sh", "-c", mount],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                text=True,
            )
        except FileNotFoundError:
            pytest.skip("unshare is not here, with which a small disk is mounted")
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            pytest.skip("no small disk can be mounted here")
        self.inside = Path(f"/proc/{self._holder.pid}/root{self.path}")

    def _start(self, *arguments: str, command: tuple[str, ...] = ()) -> Popen[str]:
        return super()._start(*arguments, command=(*self._enter(), *command))

    def cached_in(self) -> CommandLine:
        """Return the command line with its cache on the disk, and studies elsewhere."""
        other = copy.copy(self)
        CommandLine.__init__(other, self.folder, self.path / "cache")
        return other

    def fill(self, leave: int = 0) -> None:
        """Take all space but so many bytes."""
        free = shutil.disk_usage(self.inside).free
        with (self.inside / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave)

    def free(self) -> None:
        (self.inside / "filler").unlink()

    def make_read_only(self) -> None:
        remount = ("mount", "-o", "remount,ro", str(self.path))
        subprocess.run([*self._enter(), *remount], check=True)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def _enter(self) -> tuple[str, ...]:
        options = ("-U", "-m", "--wd", "--preserve-credentials")  # without --wd it starts in /
        return ("nsenter", "-t", str(self._holder.pid), *options, "--")


@pytest.fixture
def disk(tmp_path: Path, faults: object) -> Iterator[Disk]:
    disk = Disk(tmp_path, tmp_path / "cache", "8m")
    yield disk
    disk.close()
