"""Checks of an engine, with real workers that are never given a trial."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import storage
from automl_tl.cache.contents import MAX_BYTES
from automl_tl.elsewhere import Elsewhere
from automl_tl.networks import Networks
from automl_tl.plugins import get_plugins
from automl_tl.specs import WorkerSettings
from automl_tl.study import StudyDirectory
from automl_tl.study_config import Config
from automl_tl.study_data import StudyData
from automl_tl.testing.findings import Finding
from automl_tl.worker_setup import Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from automl_tl.protocols import Engine

SECONDS = 90.0
"""What a worker gets to start, be it somewhere else."""
GRACE = 5.0
"""Seconds that workers get to end by themselves."""
BROKEN = 2
"""A worker that fails at once."""


@dataclass(frozen=True, slots=True)
class Crew:
    """An engine over a study without images.

    Attributes:
        subject: What findings call it.
        create: Makes an engine of two workers; a worker that is called ``BROKEN`` fails at once.
    """

    subject: str
    create: Callable[[], Engine]


@contextmanager
def crew(name: str) -> Iterator[Crew]:
    """Prepare an engine for its checks.

    Raises:
        UsageError: When there is no such engine.
    """
    spec = get_plugins().engine(name)
    with tempfile.TemporaryDirectory(prefix="automl-tl-check-") as folder:
        path = Path(folder) / "study"
        nothing = np.array([], np.int64)
        data = StudyData(("a", "b"), (), nothing, (), (), "nothing", {})
        storage.create_optuna(_made(path), None, "study", "maximize")
        StudyDirectory.create(path, Config("study", "nothing", ()), data)

        def setup(index: int) -> Any:
            if index == BROKEN:
                return "no setup"
            networks = Networks({}, {})
            here = Setup(
                directory=path,
                networks=networks,
                index=index,
                workers=1,
                device="cpu",
                gpu=None,
                threads=1,
                host_threads=1,
                cache=Path(folder) / "cache",
                cache_bytes=MAX_BYTES,
                search="check",
            )
            return Elsewhere(here) if spec.remote else here

        settings = WorkerSettings(path, ("cpu", "cpu"), 1, setup, workers=2)
        yield Crew(f"engine {name}", lambda: spec.create(settings))


def check_workers(team: Crew) -> Iterator[Finding]:
    """Workers start, say so, and answer what they are sent; all of them end."""
    engine = team.create()
    try:
        yield Finding(
            team.subject,
            "workers",
            "as many workers as were asked for, or a device each: 2",
            str(getattr(engine, "workers", None)),
            getattr(engine, "workers", None) == 2,
        )
        for index in (0, 1):
            engine.start(index)
        heard = _wait(engine, {(0, "idle"), (1, "idle")})
        right = heard >= {(0, "idle"), (1, "idle")}
        yield Finding(
            team.subject, "workers", "both workers to say that they are idle", _said(heard), right
        )
        engine.send(1, {"do": "trials", "seconds": 60.0, "most": 0, "left": 0, "bound": 0})
        heard = _wait(engine, {(1, "idle")})
        yield Finding(
            team.subject,
            "workers",
            "an answer of the one worker that is sent a message",
            _said(heard),
            (1, "idle") in heard and (0, "idle") not in heard,
        )
    finally:
        began = time.monotonic()
        engine.close(GRACE)
        seconds = time.monotonic() - began
    yield Finding(
        team.subject,
        "workers",
        f"an end within the {GRACE:g} s of grace and 5 more",
        f"{seconds:.1f} s",
        seconds <= GRACE + 5,
    )


def check_poll(team: Crew) -> Iterator[Finding]:
    """Polling waits as long as it is asked to when nobody says anything."""
    engine = team.create()
    try:
        began = time.monotonic()
        messages = engine.poll(0.5)
        seconds = time.monotonic() - began
    finally:
        engine.close(0.0)
    yield Finding(
        team.subject,
        "poll",
        "nothing after about 0.5 s without workers",
        f"{len(messages)} messages after {seconds:.1f} s",
        not messages and 0.3 <= seconds <= 3,
    )


def check_dead_workers(team: Crew) -> Iterator[Finding]:
    """A worker that dies is reported with a reason, is sent nothing, and can be started again."""
    engine = team.create()
    try:
        engine.start(BROKEN)
        reasons: list[Any] = []
        heard = _wait(engine, {(BROKEN, "died")}, reasons)
        told = bool(reasons) and isinstance(reasons[-1], str)
        yield Finding(
            team.subject,
            "dead workers",
            "the event died, with a reason, of a worker that fails",
            f"{_said(heard)}: {reasons[-1]}" if reasons else _said(heard),
            (BROKEN, "died") in heard and told,
        )
        engine.send(BROKEN, {"do": "stop", "reason": "to see whether this raises"})
        engine.start(BROKEN)
        heard = _wait(engine, {(BROKEN, "died")})
        yield Finding(
            team.subject,
            "dead workers",
            "the same of a worker that is started again",
            _said(heard),
            (BROKEN, "died") in heard,
        )
    finally:
        engine.close(0.0)


def _wait(
    engine: Engine, wanted: set[tuple[int, str]], reasons: list[Any] | None = None
) -> set[tuple[int, str]]:
    """Hear what workers say until all that is wanted was said, or the time is up."""
    heard: set[tuple[int, str]] = set()
    end = time.monotonic() + SECONDS
    while not heard >= wanted and time.monotonic() < end:
        for index, message in engine.poll(0.2):
            said: Mapping[str, Any] = message
            heard.add((index, str(said.get("event"))))
            if reasons is not None and said.get("event") == "died":
                reasons.append(said.get("reason"))
    return heard


def _said(heard: set[tuple[int, str]]) -> str:
    return ", ".join(f"{event} of worker {index}" for index, event in sorted(heard)) or "nothing"


def _made(path: Path) -> Path:
    path.mkdir()
    return path


ENGINE_CHECKS: tuple[Callable[[Crew], Iterator[Finding]], ...] = (
    check_workers,
    check_poll,
    check_dead_workers,
)
