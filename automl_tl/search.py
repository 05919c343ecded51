"""A search from start to end: budgets, workers, what happens on Ctrl-C and when things die."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from automl_tl.announce import died, study_event
from automl_tl.baselines import Baselines
from automl_tl.devices import Room, gpus_for
from automl_tl.ending import Ending
from automl_tl.errors import StudyError
from automl_tl.first_message import FirstMessage
from automl_tl.guard import Interrupts
from automl_tl.last_look import NOT_YET, last_look
from automl_tl.plugins import get_plugins
from automl_tl.prepare import study_space
from automl_tl.recorded import open_study
from automl_tl.sharing import Sharing
from automl_tl.specs import WorkerSettings
from automl_tl.storage import best_trials
from automl_tl.tally import Tally
from automl_tl.worker import TOGETHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import optuna

    from automl_tl.bounds import Bounds
    from automl_tl.cache.store import Store
    from automl_tl.networks import Networks
    from automl_tl.protocols import Engine
    from automl_tl.sharing import Reaped
    from automl_tl.space import Space
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

    Listener = Callable[[Mapping[str, Any]], None]

GRACE_SECONDS = 5.0
"""How long a worker may take to obey before it is killed."""
TEST_SECONDS = 7.0
"""How far past the deadline the test split may run, when a machine turns out slower than it was."""
MAX_DEATHS = 3


class Search:
    """Supervises the workers of one study.

    Args:
        study: The study directory, see ``guard.at_work_on``.
        data: Its data.
        networks: Its networks and pixel arrays.
        store: The cache.
        bounds: When to end.
        listener: Told everything that happens.
    """

    def __init__(
        self,
        study: StudyDirectory,
        data: StudyData,
        networks: Networks,
        store: Store,
        bounds: Bounds,
        listener: Listener,
    ) -> None:
        self._directory = study
        self._data = data
        self._networks = networks
        self._store = store
        self._bounds = bounds
        self._tell = listener
        self._fatal: str | None = None
        self._interrupts = Interrupts()
        self._granted: dict[int, int] = {}
        self._idle: set[int] = set()
        self._asked_to_stop: set[int] = set()
        self._deaths: Counter[int] = Counter()
        self._tally = Tally(study.config.metric)
        self._ending = Ending(bounds, self._tally, listener)
        self._identity = uuid.uuid4().hex
        self._space: Space
        self._baselines: Baselines
        self._sharing: Sharing
        self._room: Room

    def run(
        self,
        workers: int | None,
        device: str,
        engine: str,
        options: Mapping[str, Any],
        per_device: int = 1,
    ) -> str:
        """Search until a bound is reached; returns why it ended.

        Without ``workers``, ``per_device`` of them work on each device.

        Raises:
            StudyError: When nothing can succeed.
            UsageError: When there is no such engine, or it takes no such options.
        """
        spec = get_plugins().engine(engine, options)
        with self._interrupts:
            optuna_study = self._open()
            finished = self._tally.finished
            self._tell(
                study_event(self._directory, self._data, self._bounds, optuna_study, finished)
            )
            remote = spec.remote
            gpus = (None,) * (workers or 1) if remote else self._gpus(workers, per_device, device)
            one_first = self._space.one_pass and not remote
            self._room = Room(() if remote else gpus, one_first=one_first)
            first = FirstMessage(
                self._directory.path,
                self._networks,
                self._store,
                self._identity,
                self._bounds.trial_seconds,
                device,
                gpus,
                one_first,
            )
            settings = WorkerSettings(
                self._directory.path,
                (device,) * len(gpus),
                first.threads,
                first.elsewhere if remote else first.here,
                workers,
                dict(options),
            )
            crew = spec.create(settings)
            try:
                self._loop(crew, optuna_study)
                self._finish(crew, optuna_study)
            finally:
                hurry = self._insisted() or time.monotonic() > self._bounds.deadline
                crew.close(0.5 if hurry else GRACE_SECONDS)
                self._sharing.end(patient=not self._insisted())
            self._check_result(optuna_study)
        return self._ending.reason or "finished"

    def _open(self) -> optuna.Study:
        study = open_study(self._directory, self._hurried)
        self._space = study_space(self._directory.config, self._warn)
        self._baselines = Baselines(study, self._space)
        self._baselines.enqueue()
        shared = self._directory.config.storage is not None
        self._sharing = Sharing(study, self._identity, shared=shared)
        self._report(self._sharing.begin())
        self._tally.read(study)
        return study

    def _hurried(self) -> bool:
        """Whether there is no time to wait for a database."""
        return self._interrupts.count > 0 or time.monotonic() > self._bounds.deadline

    def _insisted(self) -> bool:
        """Whether somebody pressed Ctrl-C again, to end everything at once."""
        return self._interrupts.count > 1

    def _look(self, study: optuna.Study) -> None:
        """Take note of what other searches of this study did."""
        self._report(self._sharing.look())
        self._tally.read(study)

    def _report(self, reaped: Reaped) -> None:
        for number, reason, again in reaped:
            self._warn(died(number, reason, again))

    def _gpus(self, workers: int | None, per_device: int, device: str) -> tuple[str | None, ...]:
        """Return a GPU for every worker, or None for what ``device`` says."""
        if device != "auto":
            return (None,) * (workers or per_device)
        backends = {key.partition("/")[0] for key in self._directory.config.backbones}
        return gpus_for(workers, per_device, backends, self._directory.log(0), self._warn)

    def _loop(self, crew: Engine, study: optuna.Study) -> None:
        for index in range(crew.workers):
            if self._may_start():
                crew.start(index)
        running = set(range(crew.workers)) if self._may_start() else set()
        while running:
            for index, message in crew.poll(0.2):
                self._hear(crew, index, dict(message), study, running)
            self._obey(crew)
            if self._sharing.due:
                self._look(study)
            if self._ending.reason is None:
                for index in sorted(self._idle):
                    if self._may_start() and self._room.left(index, self._granted):
                        self._grant(crew, index)
            if self._ending.reason and not self._granted and self._idle:
                return  # without those that still start, or wait for a place
            if self._ending.overdue(GRACE_SECONDS):
                return
            if self._insisted():
                return

    def _hear(
        self,
        crew: Engine,
        index: int,
        message: dict[str, Any],
        study: optuna.Study,
        running: set[int],
    ) -> None:
        event = message["event"]
        if event == "idle":
            self._granted.pop(index, None)
            self._idle.add(index)
            if self._sharing.shared:
                self._look(study)
        elif event == "trial_finished":
            self._deaths[index] = 0
            self._granted[index] = max(0, self._granted.get(index, 0) - 1)
            if crowded := self._room.learn(message):
                self._tell({"event": "note", "text": crowded})
            told = self._tally.add(message)
            if self._sharing.shared:  # the others' trials count too
                self._tally.read(study)
            self._tell({"worker": index, **told, "finished": self._tally.finished})
            if vain := self._tally.in_vain():
                self._ending.stop(vain)
            self._baselines.enqueue(self._ending.left(self._begun()))
        elif event == "fatal":
            self._fatal = str(message["reason"])
            self._ending.stop(self._fatal)
        elif event == "died":
            self._granted.pop(index, None)
            self._idle.discard(index)
            if self._fatal:
                running.discard(index)
            else:
                self._worker_died(crew, index, message["reason"], study, running)
        else:
            self._tally.expect(message.pop("closing_seconds", 0.0))
            self._tell({"worker": index, **message})

    def _worker_died(
        self, crew: Engine, index: int, reason: str, study: optuna.Study, running: set[int]
    ) -> None:
        self._tell({"event": "worker_died", "worker": index, "reason": reason})
        for number, why, again in self._sharing.worker_died(index, reason):
            self._warn(died(number, reason, again))
            if not again:
                self._tally.failures.append(why)
        self._tally.read(study)
        self._deaths[index] += 1
        if self._ending.reason or self._deaths[index] >= MAX_DEATHS:
            running.discard(index)
            if not running and self._ending.reason is None:
                self._fatal = (
                    f"The workers keep dying ({reason}): see {self._directory.log(index)}."
                )
                self._ending.stop("the workers keep dying")
        else:
            crew.start(index)

    def _grant(self, crew: Engine, index: int) -> None:
        """Let a worker run trials: one, unless it finds frozen ones to train together."""
        most, left = TOGETHER, self._ending.left(self._begun())
        if left is not None:
            most = min(most, -(-left // crew.workers))  # the last ones are for all workers
        if not self._baselines.done:  # what is drawn now must not come before what they will add
            most = min(most, max(1, self._baselines.waiting))
        self._idle.discard(index)
        self._granted[index] = most
        order = {
            "seconds": self._ending.seconds_left(),
            "most": most,
            "left": left,
            "bound": self._bounds.trials,
        }
        crew.send(index, {"do": "trials", **order})

    def _begun(self) -> int:
        """How many trials run or are granted, here and elsewhere."""
        return sum(self._granted.values()) + self._sharing.elsewhere

    def _may_start(self) -> bool:
        return self._ending.may_start(self._begun())

    def _obey(self, crew: Engine) -> None:
        """Ask what runs to stop, once there is a reason.

        Each worker is asked once: the pipe to one that hangs would fill, and hold the search.
        """
        if self._interrupts.count:
            self._ending.stop("interrupted")
        self._ending.watch_target()
        self._ending.watch_clock()
        if self._ending.reason:
            for index in sorted(self._granted.keys() - self._asked_to_stop):
                self._asked_to_stop.add(index)
                crew.send(index, {"do": "stop", "reason": self._ending.reason})

    def _finish(self, crew: Engine, study: optuna.Study) -> None:
        """Have the best trial's figures on the test split computed, unless they are known."""
        best = best_trials(study)
        if not best or self._insisted():
            return
        number = best[0].number
        result = self._directory.result()
        if result and result["trial"] == number:
            return
        if not self._idle:
            if self._bounds.deadline - time.monotonic() < 0:
                self._warn(f"The test split was not evaluated; {NOT_YET}")
                return
            crew.start(0)
            self._idle.add(0)
        index, *others = sorted(self._idle)
        for other in others:
            crew.send(other, {"do": "rest"})
        end = min(self._bounds.deadline + TEST_SECONDS, time.monotonic() + 3600)
        last_look(crew, index, number, end, self._insisted, self._tell)

    def _check_result(self, study: optuna.Study) -> None:
        if self._fatal:
            raise StudyError(self._fatal)
        reason = self._tally.commonest_failure()
        if reason and not best_trials(study) and not self._interrupts.count:
            raise StudyError(f"No trial succeeded; most failed because: {reason}")

    def _warn(self, text: str) -> None:
        self._tell({"event": "warning", "text": text})
