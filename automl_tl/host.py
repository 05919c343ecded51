"""Runs a backend in a process of its own, behind the ``Backend`` protocol.

The core thereby never imports a framework, two frameworks never meet in one process, and a crash
inside one costs a trial, not the worker.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from automl_tl import errors
from automl_tl.errors import AutoMLError, BackendDied, TrialError
from automl_tl.ipc import Child
from automl_tl.machine import available_cpus
from automl_tl.process_environment import process_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.types import Head, NetworkInfo, NetworkSpec, Source, TrainFacts, TrainJob


class BackendHost:
    """A backend in a child process, started when it is first needed and again after a crash.

    Args:
        name: Of the backend.
        device: ``auto`` or one of the backend's devices.
        threads: CPU threads; None takes all cores.
        log: File for what the child prints; None for our stderr.
    """

    def __init__(
        self,
        name: str,
        device: str = "auto",
        threads: int | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self._threads = threads or available_cpus()
        self.log = log
        self._child: Child | None = None
        self._configured = False

    def __enter__(self) -> BackendHost:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the child unless it runs, without waiting until its framework is imported."""
        if self._child and self._child.process.poll() is not None:
            self.close()
        if self._child is None:
            from automl_tl.plugins import get_plugins

            spec = get_plugins().backend(self.name)
            environment = {**process_environment(self._threads), **spec.environment}
            self._child = Child("automl_tl.hosted", [self.name], environment, self.log)
            self._configured = False
            self._send(self._child, "configure", self.device, self._threads)

    def close(self) -> None:
        """End the child process."""
        if self._child:
            self._child.close()
            self._child = None

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the child when what is inside takes longer; a call that waits raises then."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # a kill that has begun is over before anything else is asked

    def _kill(self) -> None:
        if self._child:
            self._child.kill()

    def call(self, method: str, *arguments: Any, progress: Progress | None = None) -> Any:
        """Call a method in the child and return its result.

        Raises:
            AutoMLError: What the backend raised on purpose, or what ``progress`` did.
            TrialError: For anything else it raised, and when the child died.
        """
        child = self.child()
        self._send(child, method, *arguments)
        return self._answer(child, progress)

    def describe(self, network: NetworkSpec) -> NetworkInfo:
        """See ``Backend.describe``."""
        info: NetworkInfo = self.call("describe", network)
        return info

    def own_code(self) -> dict[str, str]:
        """Return what the child has loaded of a person's own code; see ``own_code.loaded``."""
        files: dict[str, str] = self.call("own_code")
        return files

    def run(
        self,
        network: NetworkSpec,
        source: Source,
        cut: int,
        pooling: str | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """See ``Backend.run``."""
        self.call("run", network, source, cut, pooling, out, progress=progress)

    def extract(
        self,
        network: NetworkSpec,
        source: Source,
        layer: str,
        pooling: str | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """See ``Backend.extract``."""
        self.call("extract", network, source, layer, pooling, out, progress=progress)

    def classifier(self, backbone: str, weights: Path) -> RemoteModel:
        """See ``Backend.classifier``."""
        return RemoteModel(self, "classifier", backbone, weights)

    def trainer(self, job: TrainJob) -> RemoteTrainer:
        """See ``Backend.trainer``."""
        return RemoteTrainer(self, self.call("trainer", job))

    def assemble(
        self,
        network: NetworkSpec,
        head: Head,
        weights: Sequence[NDArray[np.float32]],
        path: Path,
        metadata: Mapping[str, str],
    ) -> None:
        """See ``Backend.assemble``."""
        self.call("assemble", network, head, tuple(weights), path, dict(metadata))

    def load(self, path: Path) -> RemoteModel:
        """See ``Backend.load``."""
        return RemoteModel(self, "load", path)

    def devices(self) -> list[str]:
        """See ``Backend.devices``."""
        devices: list[str] = self.call("devices")
        return devices

    def configure(self, device: str, threads: int) -> str:
        """See ``Backend.configure``."""
        self.device, self._threads = device, threads
        chosen: str = self.call("configure", device, threads)
        return chosen

    def child(self) -> Child:
        """Return the child, which is another one after a crash; its framework is imported."""
        self.start()
        child = self._child
        assert child is not None
        if not self._configured:
            try:
                self._answer(child)
            except BaseException:
                self.close()
                raise
            self._configured = True
        return child

    def _send(self, child: Child, method: str, *arguments: Any) -> None:
        with suppress(EOFError):  # whoever waits for the answer notices that the child is dead
            child.channel.send(("call", (method, arguments)))

    def _answer(self, child: Child, progress: Progress | None = None) -> Any:
        try:
            while True:
                kind, value = child.channel.receive()
                if kind == "progress":
                    # What is told may call the child again, which serves it while it waits.
                    told = _tell(progress, value)
                    if told and child is not self._child:  # such a call failed, which ended it
                        raise told
                    child.channel.send(("told", told))
                elif kind == "raise":
                    raise getattr(errors, value[0])(value[1])
                elif kind == "broken":
                    # Whatever a framework did not mean to raise may have spoilt its state.
                    self.close()
                    raise TrialError(value)
                else:
                    return value
        except EOFError:
            self._child = None
            ending = child.ending()
            child.close()
            where = f"; see {self.log}" if self.log else ""
            raise BackendDied(f"The {self.name} process died ({ending}){where}.") from None
        except BaseException as error:
            if not isinstance(error, AutoMLError):
                self.close()
            raise


class RemoteTrainer:
    """A trainer that lives in a backend's process."""

    def __init__(self, host: BackendHost, handle: int) -> None:
        self._host = host
        self._handle = handle

    def run(self, progress: Progress) -> TrainFacts:
        """See ``Trainer.run``."""
        facts: TrainFacts = self._host.call("trainer.run", self._handle, progress=progress)
        return facts

    def facts(self) -> TrainFacts:
        """See ``Trainer.facts``."""
        facts: TrainFacts = self._host.call("trainer.facts", self._handle)
        return facts

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """See ``Trainer.save``."""
        self._host.call("trainer.save", self._handle, path, dict(metadata))


class RemoteModel:
    """A model that lives in a backend's process, and is loaded again when that was started anew.

    Args:
        host: The backend.
        method: What loads it there.
        arguments: Of that method.
    """

    def __init__(self, host: BackendHost, method: str, *arguments: Any) -> None:
        self._host = host
        self._loading = (method, *arguments)
        self._temperatures: list[float] = []
        self._load()

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """See ``Model.logits``."""
        logits: NDArray[np.float32] = self._call("logits", pixels, batch_size)
        return logits

    def calibrate(self, temperature: float) -> None:
        """See ``Model.calibrate``."""
        self._call("calibrate", temperature)
        self._temperatures.append(temperature)

    def export(self, format: str, path: Path, metadata: Mapping[str, str]) -> None:
        """See ``Model.export``."""
        self._call("export", format, path, dict(metadata))

    def _load(self) -> None:
        self._child = self._host.child()
        self._handle: int = self._host.call(*self._loading)
        for temperature in self._temperatures:
            self._host.call("model.calibrate", self._handle, temperature)

    def _call(self, method: str, *arguments: Any) -> Any:
        if self._host.child() is not self._child:
            self._load()
        return self._host.call(f"model.{method}", self._handle, *arguments)


def _tell(progress: Progress | None, value: Any) -> AutoMLError | None:
    """Hand progress on; what it raises on purpose goes back into the training loop."""
    kind, arguments = value
    try:
        if progress:
            getattr(progress, kind)(*arguments)
    except AutoMLError as error:
        return error
    return None
