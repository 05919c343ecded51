"""A backend's process, as ``automl_tl.host`` starts it: serves one backend over a pipe."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl import errors, own_code
from automl_tl.errors import AutoMLError, PluginError, TrialError
from automl_tl.ipc import parent_channel
from automl_tl.pages import give_back

if TYPE_CHECKING:
    from automl_tl.types import EpochReport, Source

STEP_SECONDS = 0.1
"""Progress inside an epoch crosses the process boundary at most this often."""


class _HostProgress:
    """Progress, as the backend in the child sees it."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._last = 0.0

    def need(self, source: Source) -> None:
        self._send("need", source)

    def epoch(self, report: EpochReport) -> None:
        self._send("epoch", report)

    def step(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= STEP_SECONDS or done >= total:
            self._last = now
            self._send("step", what, done, total)

    def _send(self, kind: str, *arguments: Any) -> None:
        channel = self._service.channel
        channel.send(("progress", (kind, arguments)))
        while True:
            answer, value = channel.receive()
            if answer == "told":
                break
            self._service.serve(*value)
        if value:
            raise value


class _Service:
    """The child's side: one backend, and the last trainer and model made by it."""

    def __init__(self, name: str) -> None:
        self.channel = parent_channel()
        self._name = name
        self._backend: Any = None
        self._progress = _HostProgress(self)
        self._objects: dict[str, tuple[int, Any]] = {}
        self._count = 0
        self._own_code: dict[str, str] = {}

    def run(self) -> None:
        with suppress(EOFError):
            while True:
                _, call = self.channel.receive()
                self.serve(*call)

    def serve(self, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self.channel.send(("return", self._call(method, arguments)))
        except AutoMLError as error:
            self.channel.send(("raise", _ours(error)))
        except EOFError:
            raise
        except OSError as error:  # the machine's doing: its own words say all there is to say
            self.channel.send(("broken", str(error.strerror or error)))
        except Exception as error:  # whatever a framework raises becomes one sentence
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            self.channel.send(("broken", f"{type(error).__name__}: {lines[0]}"))

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if method == "own_code":
            self._own_code = own_code.loaded() | self._own_code  # as it was when it was imported
            return self._own_code
        if self._backend is None:
            self._backend = _load(self._name)
        target = self._backend
        owner, _, name = method.rpartition(".")
        if owner:
            handle, target = self._objects.get(owner, (0, None))
            if handle != arguments[0]:
                raise TrialError(f"This {owner} was replaced by a newer one; make it again.")
            arguments = arguments[1:]
        if name in {"run", "extract"}:
            try:
                return getattr(target, name)(*arguments, self._progress)
            finally:
                give_back()  # see `automl_tl.process_environment`
        result = getattr(target, name)(*arguments)
        if method in {"trainer", "load", "classifier"}:
            self._count += 1
            self._objects["trainer" if method == "trainer" else "model"] = (self._count, result)
            return self._count
        return result


def _ours(error: AutoMLError) -> tuple[str, str]:
    """Name the class of our own that an error is; a plugin's own class may not travel."""
    known = next(kind for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
    return known.__name__, str(error)


def _load(name: str) -> Any:
    from automl_tl.plugins import get_plugins

    with suppress(OSError):  # where the machine runs out of memory, this process is to go first
        Path("/proc/self/oom_score_adj").write_text("500")
    try:
        return get_plugins().backend(name).load()
    except AutoMLError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise PluginError(
            f"The {name} backend cannot be loaded ({type(error).__name__}: {error}): is its "
            "framework installed? `automl-tl doctor` tells."
        ) from None


if __name__ == "__main__":
    import sys

    _Service(sys.argv[1]).run()
