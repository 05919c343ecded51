"""Child processes and the messages between them and us.

Frames are pickled, which is safe here only because both ends are processes of ours that talk over
anonymous pipes; nothing that comes from a file goes through this module. What an engine carries to
another machine is trusted as that engine's own way there is: see docs/security.md on Ray.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
_STARTER = "AUTOML_TL_STARTER"
"""The process whose first thread started a child: it ends with that process, and not before."""


class Channel:
    """Sends and receives Python values over a pair of byte streams.

    A thread reads all the time, so that the other end's death is noticed at once.

    Args:
        reader: Stream to read frames from.
        writer: Stream to write frames to.
        on_close: Called in the reading thread when the other end is gone.
    """

    def __init__(
        self,
        reader: IO[bytes],
        writer: IO[bytes],
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_close = on_close
        self._inbox: queue.Queue[tuple[bool, Any]] = queue.Queue()
        self._sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a value. Raises ``EOFError`` when the other end is gone."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            with self._sending:
                self._writer.write(_LENGTH.pack(len(data)) + data)
                self._writer.flush()
        except (OSError, ValueError):
            raise EOFError from None

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next value.

        Raises:
            TimeoutError: When none came in ``timeout`` seconds.
            EOFError: When the other end is gone and everything it sent was received.
        """
        try:
            alive, message = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if not alive:
            self._inbox.put((False, None))
            raise EOFError
        return message

    def _read(self) -> None:
        try:
            while header := self._reader.read(_LENGTH.size):
                data = self._reader.read(_LENGTH.unpack(header)[0])
                self._inbox.put((True, pickle.loads(data)))
        except (OSError, ValueError, EOFError, struct.error):
            pass  # the other end died, perhaps in the middle of a frame
        except Exception:  # a frame that cannot be read must not leave the receiver waiting
            traceback.print_exc()
        self._inbox.put((False, None))
        if self._on_close:
            self._on_close()


class Child:
    """A Python module that runs in a process of its own, with a channel to it.

    Args:
        module: To run with ``python -m``.
        arguments: Its command line.
        environment: Variables to add to ours.
        log: File that its output is appended to; None lets it write to our stderr.
        command: What starts it, in front of its own command line: ``("nice", "-n", "10")``.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        command: Sequence[str] = (),
    ) -> None:
        stderr = _append_to(log) if log else None
        try:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environment or {}), _STARTER: _starter()},
                # A terminal's Ctrl-C reaches its foreground group: us, who stop the child cleanly.
                process_group=0 if os.name == "posix" else None,
            )
        finally:
            if stderr:
                stderr.close()
        assert self.process.stdout is not None and self.process.stdin is not None
        self.channel = Channel(self.process.stdout, self.process.stdin)

    def ending(self) -> str:
        """Say how the process ended, waiting a moment for it."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe but still runs"
        if code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def close(self, grace: float = 5.0) -> None:
        """End the process: close its pipe, and kill it after ``grace`` seconds."""
        self.hang_up()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process, and wait a moment until it is gone."""
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)

    def hang_up(self) -> None:
        """Close the pipe to the process, which thereupon ends by itself."""
        with suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()


def _starter() -> str:
    first = threading.get_native_id() == os.getpid()
    return str(os.getpid()) if first else ""


class _Log(io.FileIO):
    """Where what is printed goes; what a full disk does not take is lost."""

    @classmethod
    def of(cls, descriptor: int) -> io.TextIOWrapper:
        raw = cls(descriptor, "w", closefd=False)
        return io.TextIOWrapper(
            io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True
        )

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _append_to(log: Path) -> IO[bytes]:
    """Open a log; nowhere to log to, such as a full disk, is no reason not to work."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return open(os.devnull, "ab")


def parent_channel() -> Channel:
    """Return the channel to our parent; call it once, first thing in a child.

    Whatever is printed from then on goes to stderr. The process ends at once when its parent does,
    and ignores Ctrl-C and SIGTERM, which reach the whole group and are the parent's to handle.
    """
    # Native code that hangs may keep the thread below from running. To the kernel our parent is the
    # thread that started us, which must not end before its process does.
    if sys.platform == "linux" and os.environ.pop(_STARTER, "") == str(os.getppid()):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    writer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout, sys.stderr = _Log.of(1), _Log.of(2)
    return Channel(sys.stdin.buffer, writer, on_close=lambda: os._exit(0))
