"""A worker: ask, plan, train, tell, for one device, as long as the supervisor grants trials."""

from __future__ import annotations

import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import TrialState

from automl_tl import metrics, storage
from automl_tl.cache.store import Store
from automl_tl.errors import (
    AutoMLError,
    BackendDied,
    FinishTraining,
    PruneTraining,
    UsageError,
)
from automl_tl.files import write_json
from automl_tl.host import BackendHost
from automl_tl.ipc import Channel, parent_channel
from automl_tl.observe import Observers
from automl_tl.prepare import study_space
from automl_tl.recipe import model_facts
from automl_tl.study import KEEP_MODELS, StudyDirectory
from automl_tl.testsplit import test_trial
from automl_tl.trial import Hooks, TrialRunner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.networks import Networks
    from automl_tl.planner import Plan
    from automl_tl.space import TrialSpec
    from automl_tl.trial import Outcome
    from automl_tl.types import EpochReport, NetworkInfo

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
TOLD = ("duration_s", "epochs", "planned_epochs", "fine_tune_at", "layers", "stopped")
"""What a listener is told of a finished trial's facts."""
STAGE_SECONDS = 0.25
SAVED_A_SECOND = 25e6
"""Parameters that a slow disk writes: 300 M took 11 s on one at 110 MB/s."""
TUNED_BEFORE_PRUNING = 3
"""Epochs of fine-tuning that every trial gets; the first ones say little of the last."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the supervisor tells a worker once.

    Attributes:
        directory: The study directory.
        networks: Networks and pixel arrays.
        index: Which worker this is.
        device: Its device, or ``auto``.
        gpu: What ``CUDA_VISIBLE_DEVICES`` should be for it; None leaves it as it is.
        threads: Its CPU threads.
        cache: Root of the cache.
        cache_bytes: Bound of the cache.
    """

    directory: Path
    networks: Networks
    index: int
    device: str
    gpu: str | None
    threads: int
    cache: Path
    cache_bytes: int


class Worker:
    """Runs trials and says what happens.

    Args:
        setup: What to work on.
        channel: To the supervisor.
    """

    def __init__(self, setup: Setup, channel: Channel) -> None:
        if setup.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = setup.gpu
        self._setup = setup
        self._channel = channel
        self._directory = StudyDirectory.open(setup.directory)
        self._config = self._directory.config
        self._data = self._directory.data()
        self._space = study_space(self._config)
        config = self._config
        self._study = storage.open_optuna(setup.directory, config.storage, config.name, config.seed)
        self._hosts: dict[str, BackendHost] = {}
        self._store = Store(setup.cache, setup.cache_bytes)
        self._runner = TrialRunner(
            self._data,
            self._config.metric,
            self._config.seed,
            setup.networks,
            self._store,
            self._host,
        )
        self._observers = Observers(self._directory, lambda text: self._say("warning", text=text))
        self._owner = storage.owner()
        self._deadline = float("inf")
        self._said = 0.0
        self._parameters = 0

    def run(self) -> None:
        """Serve the supervisor until it closes the channel."""
        self._say("idle")
        while True:
            message = self._channel.receive()
            if message["do"] == "trial":
                self._deadline = time.monotonic() + message["seconds"]
                self._trial()
            elif message["do"] == "test":
                self._test(message["trial"])
            self._say("idle")  # also to a stop that came when nothing ran

    def _host(self, name: str) -> BackendHost:
        if name not in self._hosts:
            log = self._directory.log(self._setup.index)
            self._hosts[name] = BackendHost(name, self._setup.device, self._setup.threads, log)
        return self._hosts[name]

    def _say(self, event: str, **facts: Any) -> None:
        self._channel.send({"event": event, **facts})

    def _trial(self) -> None:
        started = time.monotonic()
        for path, _ in self._setup.networks.arrays.values():
            self._store.touch(path)
        trial = self._study.ask()
        trial.set_user_attr(storage.OWNER, self._owner)
        facts: dict[str, Any] = {}
        value = None
        state = TrialState.FAIL
        again = False
        try:
            spec = self._space.suggest(trial)
            params = dict(trial.params)
            self._say("trial_asked", number=trial.number, backbone=spec.backbone, params=params)
            facts["spec"] = asdict(spec)
            twin = self._twin(facts["spec"])
            if twin:
                facts.update(twin.user_attrs[storage.FACTS], reuse=None, twin_of=twin.number)
                facts["notes"] = [f"the same trial as {twin.number}, whose figures it takes over"]
                value = float(twin.values[0])
            else:
                outcome = self._run(trial, spec, facts)
                value = outcome.value
                self._keep(trial, outcome, facts)
            state = TrialState.COMPLETE
        except PruneTraining:
            state = TrialState.PRUNED
            value = facts.get("last_value")
        except (UsageError, optuna.exceptions.OptunaError):
            raise  # no other trial would fare better
        except (FinishTraining, BackendDied) as error:
            facts["reason"] = str(error)
            again = True
        except AutoMLError as error:
            facts["reason"] = str(error)
        except Exception as error:  # a bug must not end the study
            traceback.print_exc()
            facts["reason"] = f"{type(error).__name__}: {error}"
        facts["duration_s"] = round(time.monotonic() - started, 3)
        if again:
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            again = storage.fail(self._study, frozen, facts)
        else:
            trial.set_user_attr(storage.FACTS, facts)
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
        self._drop_models()
        self._say(
            "trial_finished",
            number=trial.number,
            state="stopped" if again else _STATES[state],
            value=value,
            again=again,
            twin_of=facts.get("twin_of"),
            params=dict(trial.params),
            backbone=facts.get("spec", {}).get("backbone"),
            **{key: facts.get(key) for key in (*TOLD, "reason")},
            closing_seconds=facts.get("closing_seconds", 0.0),
            notes=facts.get("notes", []),
            reuse=facts.get("reuse"),
        )
        self._observe(trial, _STATES[state], value, facts)

    def _observe(
        self, trial: optuna.Trial, state: str, value: float | None, facts: Mapping[str, Any]
    ) -> None:
        """Tell the observers of a finished trial, and wait until they have heard all of it."""
        if not self._config.log:
            return
        self._observers.trial(trial.number, state, value, dict(trial.params), facts)
        writing = f"writing to {' and '.join(self._config.log)}"
        self._say("stage", what=writing, done=0, total=1)
        self._observers.wait(self._deadline)
        self._say("stage", what=writing, done=1, total=1)

    def _twin(self, spec: Mapping[str, Any]) -> optuna.trial.FrozenTrial | None:
        """Return a finished trial of exactly this spec: it would give the same numbers again."""
        stored = json.loads(json.dumps(spec))
        for trial in storage.best_trials(self._study):
            facts = trial.user_attrs[storage.FACTS]
            if facts["spec"] == stored and not facts["stopped"]:
                return trial
        return None

    def _run(self, trial: optuna.Trial, spec: TrialSpec, facts: dict[str, Any]) -> Outcome:
        def planned(info: NetworkInfo, at: int, plan: Plan) -> None:
            self._parameters = sum(layer.parameters for layer in info.layers)
            facts.update(fine_tune_at=at, layers=len(info.layers), plan=plan.why)
            trial.set_user_attr(storage.FACTS, facts)
            self._say(
                "trial_started",
                number=trial.number,
                backbone=spec.backbone,
                params=dict(trial.params),
                fine_tune_at=at,
                layers=len(info.layers),
                plan=plan.why,
            )

        def epoch(report: EpochReport, value: float, seconds: float) -> None:
            facts.update(epochs=report.epoch + 1, planned_epochs=report.epochs, last_value=value)
            last = report.epoch + 1 == report.epochs
            if last or report.phase == "fine-tuning":  # the warm-up is never pruned
                trial.report(value, report.epoch)
            self._say(
                "epoch",
                number=trial.number,
                phase=report.phase,
                epoch=report.epoch,
                epochs=report.epochs,
                value=value,
                train_loss=report.train_loss,
                seconds=report.seconds,
                closing_seconds=self._closing_seconds(),
            )
            self._observers.epoch(trial.number, report, value)
            tuned = report.epoch + 1 - spec.warmup_epochs if report.phase == "fine-tuning" else 0
            if tuned >= TUNED_BEFORE_PRUNING and not last and trial.should_prune():
                raise PruneTraining("pruned")
            self._check(0 if last else seconds)

        def step(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            if now - self._said >= STAGE_SECONDS or (done >= total and "prefix" in what):
                self._said = now
                self._say("stage", what=what, done=done, total=total, number=trial.number)
            self._check(0)

        outcome = self._runner.run(spec, Hooks(planned, epoch, step))
        facts.update(
            total_parameters=outcome.facts.total_parameters,
            trainable_parameters=outcome.facts.trainable_parameters,
            trainable_variables=outcome.facts.trainable_variables,
            device=outcome.facts.device,
            precision=outcome.facts.precision,
            head_scale=outcome.head_scale,
            notes=list(outcome.facts.notes),
            stopped=outcome.stopped,
            validation=dict(outcome.validation),
            reuse=asdict(outcome.reuse),
            closing_seconds=self._closing_seconds(),
        )
        return outcome

    def _check(self, ahead: float) -> None:
        """Raise when the deadline is nearer than ``ahead`` seconds, or somebody asked to stop."""
        if time.monotonic() + ahead > self._deadline:
            raise FinishTraining("the time is up")
        try:
            message = self._channel.receive(0)
        except TimeoutError:
            return
        if message["do"] == "stop":
            raise FinishTraining(str(message["reason"]))

    def _closing_seconds(self) -> float:
        """Estimate what saving the model and the test split will take.

        The former from its size, the latter from what the frozen layers took an image.
        """
        test = self._runner.reuse.slowest * len(self._data.rows("test"))
        return round(test + self._parameters / SAVED_A_SECOND, 2)

    def _keep(self, trial: optuna.Trial, outcome: Outcome, facts: dict[str, Any]) -> None:
        """Write a trial's files before it is told, so that no finished trial lacks them."""
        folder = self._directory.trial(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / ".validation_logits.npy"
        np.save(aside, outcome.logits)
        aside.replace(folder / "validation_logits.npy")
        write_json(folder / "history.json", outcome.history)
        kept = storage.best_trials(self._study)[:KEEP_MODELS]
        if len(kept) == KEEP_MODELS:
            last = metrics.goodness(float(kept[-1].values[0]), self._config.metric)
            if metrics.goodness(outcome.value, self._config.metric) <= last:
                return
        model = model_facts(self._config, self._data, trial.number, facts)
        outcome.trainer.save(self._directory.model(trial.number), model.metadata())

    def _drop_models(self) -> None:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        running = [trial.number for trial in trials]
        best = [trial.number for trial in storage.best_trials(self._study)[:KEEP_MODELS]]
        self._directory.keep_models([*best, *running])

    def _test(self, number: int) -> None:
        """Compute a trial's figures on the split that the search never saw."""
        try:
            spec = self._study.get_trials(deepcopy=False)[number].user_attrs[storage.FACTS]["spec"]
            host = self._host(spec["backbone"].partition("/")[0])
            test_trial(self._directory, self._data, number, spec, self._setup.networks, host)
        except (AutoMLError, OSError) as error:
            self._say("warning", text=f"The test split was not evaluated: {error}")
        self._say("tested", number=number)


def main() -> None:
    """Run a worker as a process; the first message is its ``Setup``."""
    channel = parent_channel()
    try:
        Worker(channel.receive(), channel).run()
    except EOFError:
        return
    except AutoMLError as error:
        channel.send({"event": "fatal", "reason": str(error)})
    except Exception as error:  # say it before dying
        traceback.print_exc()
        channel.send({"event": "fatal", "reason": f"{type(error).__name__}: {error}"})
    os._exit(1)


if __name__ == "__main__":
    main()
