"""An engine in a process of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.engines.apart import Apart
from automl_tl.errors import EngineError, UsageError
from automl_tl.specs import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = """
import os, queue, signal, sys
from automl_tl.engines.apart import serve
from automl_tl.errors import UsageError

class Echo:
    def __init__(self, settings):
        what = settings.options.get("what")
        if what == "refuse":
            raise UsageError("Expected another option.")
        if what == "crash":
            sys.exit("no such library")
        print("printed where nobody is disturbed", flush=True)
        self.workers = settings.workers
        self.settings = settings
        self.said = queue.Queue()

    def start(self, index):
        self.said.put((index, {"event": "idle", "first": self.settings.setup(index)}))

    def send(self, index, message):
        if message["do"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        self.said.put((index, {"event": "heard", **message}))

    def poll(self, timeout):
        try:
            return [self.said.get(timeout=timeout)]
        except queue.Empty:
            return []

    def close(self, grace):
        print(f"closed with {grace:g} s", flush=True)

serve(Echo)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    (tmp_path / "echo_engine.py").write_text(ENGINE)
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return WorkerSettings(tmp_path, ("cpu",), 1, lambda index: f"setup {index}", workers=3)


def hear(engine: Apart, count: int) -> list[tuple[int, Any]]:
    heard: list[tuple[int, Any]] = []
    end = time.monotonic() + 30
    while len(heard) < count and time.monotonic() < end:
        heard += engine.poll(0.1)
    return heard


def with_option(settings: WorkerSettings, what: str) -> WorkerSettings:
    return WorkerSettings(settings.directory, ("cpu",), 1, settings.setup, None, {"what": what})


def test_it_does_what_it_is_told_and_prints_into_its_log(settings: WorkerSettings) -> None:
    engine = Apart(settings, "echo_engine", "echo")
    assert engine.workers == 3
    assert engine.poll(0) == []
    engine.start(2)
    assert hear(engine, 1) == [(2, {"event": "idle", "first": "setup 2"})]
    engine.send(2, {"do": "sing"})
    assert hear(engine, 1) == [(2, {"event": "heard", "do": "sing"})]
    engine.close(1.5)
    log = (settings.directory / "logs" / "echo.log").read_text()
    assert log.splitlines() == ["printed where nobody is disturbed", "closed with 1.5 s"]


def test_what_making_it_raises_is_raised(settings: WorkerSettings) -> None:
    with pytest.raises(UsageError, match=r"Expected another option\."):
        Apart(with_option(settings, "refuse"), "echo_engine", "echo")


def test_an_engine_that_cannot_begin_is_said(settings: WorkerSettings) -> None:
    with pytest.raises(EngineError, match=r"engine echo ended \(exit code 1\): see .*echo\.log"):
        Apart(with_option(settings, "crash"), "echo_engine", "echo")
    assert "no such library" in (settings.directory / "logs" / "echo.log").read_text()


def test_its_death_ends_the_search_once_and_all_its_workers(settings: WorkerSettings) -> None:
    engine = Apart(settings, "echo_engine", "echo")
    for index in (0, 1):
        engine.start(index)
    hear(engine, 2)
    engine.send(0, {"do": "die"})
    heard = hear(engine, 3)
    assert [(index, said["event"]) for index, said in heard] == [
        (0, "fatal"),
        (0, "died"),
        (1, "died"),
    ]
    assert "killed by SIGKILL" in heard[0][1]["reason"]
    engine.start(0)
    assert engine.poll(0.1) == []
    engine.close(0)
