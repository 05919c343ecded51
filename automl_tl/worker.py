"""A worker: ask, plan, train, tell, for one device, as long as the supervisor grants trials."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from automl_tl import storage
from automl_tl.attempt import STATES, Attempt
from automl_tl.cache.store import Store
from automl_tl.closing import Closing
from automl_tl.errors import AutoMLError, FinishTraining, StudyError, UsageError
from automl_tl.facts import facts_of
from automl_tl.heart import Heart
from automl_tl.keeper import Keeper
from automl_tl.ledger import Ledger
from automl_tl.observe import Observers
from automl_tl.owner import sign
from automl_tl.prepare import need_pixels, study_space
from automl_tl.prospects import UNBOUNDED
from automl_tl.trial import TrialRunner
from automl_tl.twins import Twins
from automl_tl.worker_setup import new_host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from automl_tl.host import BackendHost
    from automl_tl.ipc import Channel
    from automl_tl.outcome import Outcome
    from automl_tl.study import StudyDirectory
    from automl_tl.types import EpochReport
    from automl_tl.worker_setup import Setup

TOGETHER = 8
"""Most frozen trials that are asked for at once, to train their heads together."""
OBEY_SECONDS = 10.0
"""How long past its time a trial may take to end before its framework's process is ended."""
SAVED_A_SECOND = 25e6
"""Parameters that a slow disk writes: 300 M took 11 s on one at 110 MB/s."""


class Worker:
    """Runs trials and says what happens.

    Args:
        setup: What to work on.
        directory: The study's.
        channel: To the supervisor.
        hosts: Frameworks that are started already, by their names.
    """

    def __init__(
        self,
        setup: Setup,
        directory: StudyDirectory,
        channel: Channel,
        hosts: Mapping[str, BackendHost],
    ) -> None:
        self._setup = setup
        self._channel = channel
        self._directory = directory
        self._config = self._directory.config
        self._data = self._directory.data()
        self._space = study_space(self._config)
        self._deadline = float("inf")
        self._stopping: str | None = None
        config = self._config
        self.study = storage.open_optuna(
            setup.directory, config.storage, config.name, config.seed, self._hurried
        )
        self._ledger = Ledger(self.study)
        self._heart = Heart(self.study, sign(setup.search, setup.index))
        self._hosts = dict(hosts)
        self._store = Store(setup.cache, setup.cache_bytes)
        need = partial(need_pixels, self._directory, self._data, self._store)
        self._runner = TrialRunner(
            self._data,
            self._config.metric,
            self._config.seed,
            setup.networks,
            self._store,
            self._host,
            need,
            setup.threads,
        )
        self._observers = Observers(self._directory, lambda text: self.say("warning", text=text))
        self._twins = Twins()
        self._keeper = Keeper(self._directory, self._data, self._ledger)
        self._closing = Closing(
            self._directory,
            self._data,
            setup.networks,
            self._store,
            self._ledger,
            self._runner,
            self._host,
            need,
            self.say,
        )

    def run(self) -> None:
        """Serve the supervisor until it closes the channel."""
        self.say("idle")
        while True:
            message = self._channel.receive()
            if message["do"] == "trials":
                self._deadline = time.monotonic() + message["seconds"]
                self._stopping = None
                self._look_ahead(message["left"])
                self._trials(message["most"], message["bound"])
            elif message["do"] == "finish":
                self._look()
                self._closing.finish(message["trial"])
            elif message["do"] == "rest":
                self._rest()
            self.say("idle")  # also to a stop that came when nothing ran

    def _hurried(self) -> bool:
        """Whether there is no time to wait for a database."""
        return self._stopping is not None or time.monotonic() > self._deadline

    def say(self, event: str, **facts: Any) -> None:
        """Tell the supervisor; see ``Owner``."""
        self._channel.send({"event": event, **facts})

    def observe_epoch(self, number: int, report: EpochReport, value: float) -> None:
        """Tell the observers; see ``Owner``."""
        self._observers.epoch(number, report, value)

    def check(self, ahead: float) -> None:
        """Raise when the deadline is nearer than ``ahead`` seconds, or somebody asked to stop.

        What the trials read stays in use until the next ones are granted.
        """
        self._store.hold()
        if time.monotonic() + ahead > self._deadline:
            raise FinishTraining("the time is up")
        try:
            message = self._channel.receive(0)
            if message["do"] == "stop":
                self._stopping = str(message["reason"])
        except TimeoutError:
            pass
        if self._stopping:
            raise FinishTraining(self._stopping)

    def closing_seconds(self, parameters: int) -> float:
        """Estimate what saving the model and the test split will take.

        The former from its size, the latter from what the frozen layers took an image.
        """
        test = self._runner.slowest * len(self._data.rows("test"))
        return round(test + parameters / SAVED_A_SECOND, 2)

    def _host(self, name: str) -> BackendHost:
        if name not in self._hosts:
            self._hosts[name] = new_host(self._setup, self._directory, name)
        return self._hosts[name]

    def _trials(self, most: int, bound: int | None) -> None:
        """Run so many trials at most: heads on the same features together, any other alone.

        A study that is shared may reach its bound meanwhile.
        """
        self._store.let_go()
        for path, _ in self._setup.networks.arrays.values():
            self._store.touch(path)
        together: list[Attempt] = []
        alone: Attempt | None = None
        common: object = None
        for _ in range(most):
            if bound is not None and self._config.storage and self._begun() >= bound:
                break
            attempt = self._ask()
            if self._taken_over(attempt):
                continue
            with self._watched(attempt):
                shared = self._runner.shared(attempt.spec)
            common = common if together else shared
            known = attempt.spec in (one.spec for one in together)
            if shared is None or shared != common or known:
                alone = attempt
                break
            together.append(attempt)
        started = time.monotonic()
        if together:
            self._run(together)
        if alone and not self._taken_over(alone):
            alone.waited(time.monotonic() - started)
            self._run([alone])

    def _taken_over(self, attempt: Attempt) -> bool:
        """Whether a finished trial was the same, so that its figures are told as this one's."""
        twin = self._twins.of(attempt.facts["spec"])
        if twin is None:
            return False
        attempt.take_over(self._ledger[twin])
        self._told(attempt)
        return True

    def _look_ahead(self, left: int | None) -> None:
        prospects = self._runner.prospects
        prospects.left = UNBOUNDED if left is None else left
        self._look()

    def _look(self) -> None:
        """Take in the trials that finished since the last look."""
        for trial in self._ledger.look():
            facts = facts_of(trial)
            if trial.state != TrialState.FAIL:
                self._runner.prospects.learn(trial.number, facts)
            if trial.state == TrialState.COMPLETE:
                self._twins.learn(trial.number, facts)

    def _begun(self) -> int:
        """Count the trials that run or have finished, here and elsewhere."""
        self._look()
        running = sum(trial.state == TrialState.RUNNING for trial in self._ledger.open)
        return running + self._ledger.counted

    def _ask(self) -> Attempt:
        trial = storage.ask(self.study)
        self._heart.add(trial)
        images, longest = len(self._data.rows("train")), self._setup.trial_seconds
        attempt = Attempt(self, trial, self._space, images, longest)
        params = dict(trial.params)
        self.say("trial_asked", number=trial.number, backbone=attempt.spec.backbone, params=params)
        return attempt

    def _run(self, batch: list[Attempt]) -> None:
        """Run attempts that have the same ``shared``, or one."""
        outcomes: Sequence[Outcome | Exception]
        try:
            with self._watched(batch[0]):
                batch[0].check()
                if self._runner.shared(batch[0].spec) is None:
                    outcomes = [self._runner.run(batch[0].spec, batch[0].hooks())]
                else:
                    specs, hooks = [one.spec for one in batch], [one.hooks() for one in batch]
                    outcomes = self._runner.run_together(specs, hooks)
        except Exception as error:
            outcomes = [error] * len(batch)
        for attempt, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, optuna.exceptions.UpdateFinishedTrialError):
                attempt.lost()
            elif isinstance(outcome, UsageError | StudyError | optuna.exceptions.OptunaError):
                raise outcome  # no other trial would fare better
            elif isinstance(outcome, Exception):
                attempt.fail(outcome, len(batch))
            else:
                attempt.complete(outcome, len(batch))
                self._look()
                try:
                    self._keeper.keep(attempt, outcome)
                except StudyError:
                    raise
                except AutoMLError as error:
                    attempt.fail(error, len(batch))
            self._told(attempt)

    def _watched(self, attempt: Attempt) -> AbstractContextManager[None]:
        """End the framework's process of an attempt that does not obey, as a hang does not."""
        host = self._host(attempt.spec.backbone.partition("/")[0])
        return host.killed_after(attempt.deadline - time.monotonic() + OBEY_SECONDS)

    def _told(self, attempt: Attempt) -> None:
        """Have an attempt told, and let go of the models that are no longer among the best."""
        attempt.tell()
        self._heart.remove(attempt.trial)
        self._look()
        self._keeper.let_go()
        self._observe(attempt)

    def _observe(self, attempt: Attempt) -> None:
        """Tell the observers of a finished trial, and wait until they have heard all of it."""
        if not self._config.log:
            return
        params = dict(attempt.trial.params)
        state = STATES[attempt.state]
        self._observers.trial(attempt.number, state, attempt.value, params, attempt.facts)
        writing = f"writing to {' and '.join(self._config.log)}"
        self.say("stage", what=writing, done=0, total=1)
        self._observers.wait(self._deadline)
        self.say("stage", what=writing, done=1, total=1)

    def _rest(self) -> None:
        """End the frameworks' processes: another worker finishes, and needs the memory."""
        for host in self._hosts.values():
            host.close()
