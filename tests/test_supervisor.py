"""What a search does about its workers, played by a crew without processes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState

from automl_tl.bounds import make_bounds
from automl_tl.engines.local import LocalEngine
from automl_tl.owner import OWNER
from automl_tl.search import Search
from automl_tl.sharing import Sharing
from automl_tl.specs import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path


class Crew:
    """Two workers, which do nothing."""

    workers = 2

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.started: list[int] = []

    def start(self, index: int) -> None:
        self.started.append(index)

    def send(self, index: int, message: dict[str, Any]) -> None:
        self.sent.append((index, message))


def begin(study: optuna.Study, **bounds: Any) -> Search:
    """Return a search in which both workers run a trial."""
    asked = {"trials": None, "seconds": None, "target": None, "started": None, **bounds}
    config = SimpleNamespace(metric="accuracy")
    directory: Any = SimpleNamespace(config=config, log=lambda index: f"worker-{index}.log")
    nothing: Any = None
    search = Search(
        *(directory, nothing, nothing, nothing),
        make_bounds("accuracy", 0, **asked),
        lambda event: None,
    )
    search._sharing = Sharing(study, "me", shared=False)
    search._baselines = SimpleNamespace(enqueue=lambda left: None)  # type: ignore[assignment]
    search._room = SimpleNamespace(learn=lambda told: None)  # type: ignore[assignment]
    search._tally.read(study)
    search._granted = {0: 1, 1: 1}
    return search


def finished(number: int, value: float) -> dict[str, Any]:
    told = {"event": "trial_finished", "number": number, "state": "complete", "value": value}
    return {**told, "again": False, "twin_of": None}


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def test_what_runs_is_stopped_when_the_target_is_reached(study: optuna.Study) -> None:
    search, crew = begin(study, target=0.9), Crew()
    for number, value in enumerate((0.8, 0.95)):
        search._obey(crew)
        assert crew.sent == []
        search._hear(crew, 0, finished(number, value), study, {0, 1})
    search._obey(crew)
    stop = {"do": "stop", "reason": "the target 0.9 is reached"}
    assert crew.sent == [(0, stop), (1, stop)]


def test_a_worker_is_asked_to_stop_once(study: optuna.Study) -> None:
    """One that hangs reads nothing: its pipe would fill, and hold the search with it."""
    search, crew = begin(study, seconds=1, started=time.monotonic() - 2), Crew()
    for _ in range(3):
        search._obey(crew)
    assert [index for index, _ in crew.sent] == [0, 1]


@pytest.mark.parametrize("patient", [True, False])
def test_what_had_no_time_to_obey_has_its_retry_still(study: optuna.Study, patient: bool) -> None:
    """Ctrl-C twice ends everything at once; what does not obey the first may hang."""
    sharing = Sharing(study, "me", shared=False)
    for _ in range(2):
        study.ask()
        sharing.end(patient=patient)
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    assert len(waiting) == (0 if patient else 1)


def test_a_trial_counts_once_when_another_worker_dies_before_it_is_told(
    study: optuna.Study,
) -> None:
    search, crew = begin(study, trials=2), Crew()
    for worker in range(2):
        study.ask().set_user_attr(OWNER, {"search": "me", "worker": worker})
    study.tell(0, 0.5)
    died = {"event": "died", "reason": "killed by SIGKILL"}
    search._hear(crew, 1, died, study, {0, 1})
    search._hear(crew, 0, finished(0, 0.5), study, {0, 1})
    search._hear(crew, 0, {"event": "idle"}, study, {0, 1})
    assert search._tally.finished == 1
    assert search._may_start()
    assert crew.started == [1]


@pytest.mark.parametrize("large", [False, True])
def test_a_worker_that_ends_at_once_is_one_that_died(tmp_path: Path, large: bool) -> None:
    """The pipe breaks while its first message is written, or before that."""
    first = bytes(1 << 20) if large else b""
    settings = WorkerSettings(tmp_path, ("cpu",), 1, lambda index: first, workers=1)
    engine = LocalEngine(settings, command=("false",))
    engine.start(0)
    said = engine.poll(10)
    engine.close(0)
    assert said == [(0, {"event": "died", "reason": "exit code 1"})]
