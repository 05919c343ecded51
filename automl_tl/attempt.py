"""A trial that a worker asked for, on its way to being told: what is recorded and said of it."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from automl_tl import storage
from automl_tl.errors import AutoMLError, BackendDied, FinishTraining, PruneTraining
from automl_tl.facts import FACTS, FILES, facts_of
from automl_tl.outcome import Hooks
from automl_tl.units import format_duration

if TYPE_CHECKING:
    import optuna

    from automl_tl.outcome import Outcome
    from automl_tl.planner import Plan
    from automl_tl.space import Space, TrialSpec
    from automl_tl.types import EpochReport, NetworkInfo

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
TOLD = (
    *("duration_s", "epochs", "planned_epochs", "fine_tune_at", "layers", "stopped"),
    *("device_memory", "device_total"),
)
"""What a listener is told of a finished trial's facts."""
SAID_SECONDS = 0.25
"""Progress is said at most this often."""
TUNED_BEFORE_PRUNING = 3
"""Epochs of fine-tuning that every trial gets; the first ones say little of the last."""
REASON_LENGTH = 4_000
"""Of an error, in characters: MySQL takes 64 KiB for all facts of a trial together."""
COSTLY_EPOCH = 5e9
"""Multiply-adds of a head's epoch from which on it is worth reporting each, and pruning."""


class Owner(Protocol):
    """The worker, as far as an attempt needs it."""

    study: optuna.Study

    def say(self, event: str, **facts: Any) -> None:
        """Tell the supervisor."""

    def observe_epoch(self, number: int, report: EpochReport, value: float) -> None:
        """Tell the observers."""

    def check(self, ahead: float) -> None:
        """Raise ``FinishTraining`` when there are not ``ahead`` seconds, or on a stop."""

    def closing_seconds(self, parameters: int) -> float:
        """Estimate what saving a model of that size and the test split will take."""


class Attempt:
    """One trial of one worker.

    Args:
        owner: The worker.
        trial: Asked for just now.
        space: Draws its parameters.
        images: Number of training images.
        timeout: Longest that it may take, in seconds; None for as long as it likes.

    Attributes:
        facts: What is recorded of it.
        value: The metric on the validation split, once it is known.
        state: What is told.
        again: Whether it ended through no fault of its own.
        deadline: ``time.monotonic()`` at which it should be over.

    Raises:
        UsageError: When the space cannot be drawn from.
    """

    def __init__(
        self,
        owner: Owner,
        trial: optuna.Trial,
        space: Space,
        images: int,
        timeout: float | None = None,
    ) -> None:
        self._owner = owner
        self._started = time.monotonic()
        self._images = images
        self._timeout = timeout or float("inf")
        self.deadline = self._started + self._timeout
        self._parameters = 0
        self._said = 0.0
        self._costly = False
        self.trial = trial
        self.number = trial.number
        self.spec: TrialSpec = space.suggest(trial)
        self.facts: dict[str, Any] = {"spec": asdict(self.spec)}
        self.value: float | None = None
        self.state = TrialState.FAIL
        self.again = False
        self._stopped = False

    def hooks(self) -> Hooks:
        """Return what the trial's run calls."""
        return Hooks(self._planned, self._epoch, self._step)

    def check(self, ahead: float = 0.0) -> None:
        """Raise when its own time, or the search's, is up in ``ahead`` seconds; or on a stop."""
        if time.monotonic() + ahead > self.deadline:
            raise FinishTraining("the trial's time is up")
        self._owner.check(ahead)

    def waited(self, seconds: float) -> None:
        """Leave out of its time what other trials took since it was asked for."""
        self._started += seconds
        self.deadline += seconds

    def take_over(self, twin: optuna.trial.FrozenTrial) -> None:
        """End with the figures of a finished trial of the same parameters, and without a model."""
        figures = {name: fact for name, fact in facts_of(twin).items() if name != FILES}
        self.facts.update(figures, reuse=None, twin_of=twin.number)
        self.facts["notes"] = [f"the same trial as {twin.number}, whose figures it takes over"]
        self.value = float(twin.values[0])
        self.state = TrialState.COMPLETE
        self._lasted(1)

    def complete(self, outcome: Outcome, together: int = 1) -> None:
        """End with what came of it; it shared its time with others when it ran ``together``."""
        self.facts.update(
            total_parameters=outcome.facts.total_parameters,
            trainable_parameters=outcome.facts.trainable_parameters,
            trainable_variables=outcome.facts.trainable_variables,
            device=outcome.facts.device,
            precision=outcome.facts.precision,
            device_memory=outcome.facts.device_memory,
            device_total=outcome.facts.device_total,
            head_scale=outcome.head_scale,
            notes=list(outcome.facts.notes),
            stopped=outcome.stopped,
            validation=dict(outcome.validation),
            reuse=outcome.reuse.facts(),
            closing_seconds=self._owner.closing_seconds(self._parameters),
        )
        self.value = outcome.value
        self.state = TrialState.COMPLETE
        self._lasted(together)

    def fail(self, error: Exception, together: int = 1) -> None:
        """End with an error; one that is no ``AutoMLError`` is a bug, which must end no study."""
        self.state = TrialState.FAIL
        late = time.monotonic() > self.deadline
        if isinstance(error, PruneTraining):
            self.state = TrialState.PRUNED
            self.value = self.facts.get("last_value")
        elif isinstance(error, FinishTraining | BackendDied):
            self.again = not late
            self._stopped = isinstance(error, FinishTraining)
        if not isinstance(error, AutoMLError):
            traceback.print_exception(error)
        if self.state == TrialState.FAIL:
            ours = isinstance(error, AutoMLError)
            reason = str(error) if ours else f"{type(error).__name__}: {error}"
            self.facts["reason"] = reason[:REASON_LENGTH]
            if late and isinstance(error, FinishTraining | BackendDied):
                self.facts["reason"] = self._too_long(error)
        self._lasted(together)

    def lost(self) -> None:
        """End it as failed by another search, which took us for dead and has it tried again."""
        self.facts["reason"] = "another search took its worker for dead"
        self.again = True
        self._lasted(1)

    def tell(self) -> None:
        """Record it in the study and tell the supervisor."""
        try:
            self._record()
        except UpdateFinishedTrialError:
            self.state = TrialState.FAIL
            self.lost()
        facts = self.facts
        self._owner.say(
            "trial_finished",
            number=self.number,
            state="stopped" if self.again else STATES[self.state],
            value=self.value,
            again=self.again,
            twin_of=facts.get("twin_of"),
            params=dict(self.trial.params),
            backbone=self.spec.backbone,
            **{key: facts.get(key) for key in (*TOLD, "reason")},
            closing_seconds=facts.get("closing_seconds", 0.0),
            notes=facts.get("notes", []),
            reuse=facts.get("reuse"),
        )

    def _too_long(self, error: Exception) -> str:
        obeyed = isinstance(error, FinishTraining)
        how = (
            "without finishing an epoch: give it more with --trial-timeout"
            if obeyed
            else "and did not stop when it was asked to, so its process was ended"
        )
        return f"it took longer than {format_duration(self._timeout)} {how}"

    def _record(self) -> None:
        study = self._owner.study
        self.trial.set_user_attr(FACTS, self.facts)
        if self.again:
            frozen = study.get_trials(deepcopy=False)[self.number]
            again = storage.fail(study, frozen, self.facts["reason"], stopped=self._stopped)
            self.again = again is None or again
        else:
            value = self.value if self.state == TrialState.COMPLETE else None
            study.tell(self.trial, value, state=self.state)

    def _lasted(self, together: int) -> None:
        self.facts["duration_s"] = round((time.monotonic() - self._started) / together, 3)

    def _planned(self, info: NetworkInfo, at: int, plan: Plan) -> None:
        self._parameters = sum(layer.parameters for layer in info.layers)
        products = sum(a * b for a, b in pairwise((info.features, *self.spec.head_units, 1)))
        self._costly = self._images * products >= COSTLY_EPOCH
        self.facts.update(fine_tune_at=at, layers=len(info.layers), plan=plan.why)
        if plan.tune:
            self.facts["tuned_from"] = plan.tune.cut
        if at < len(info.layers):  # a frozen trial is over too soon for anybody to look
            self.trial.set_user_attr(FACTS, self.facts)
        self._owner.say(
            "trial_started",
            number=self.number,
            backbone=self.spec.backbone,
            params=dict(self.trial.params),
            fine_tune_at=at,
            layers=len(info.layers),
            plan=plan.why,
            options=plan.table(),
        )

    def _epoch(self, report: EpochReport, value: float, seconds: float) -> None:
        self.facts.update(epochs=report.epoch + 1, planned_epochs=report.epochs, last_value=value)
        last = report.epoch + 1 == report.epochs
        prunable = self._prunable(report)
        if last or prunable:
            self.trial.report(value, report.epoch)
        now = time.monotonic()
        if last or report.phase == "fine-tuning" or now - self._said >= SAID_SECONDS:
            self._said = now
            self._owner.say(
                "epoch",
                number=self.number,
                phase=report.phase,
                epoch=report.epoch,
                epochs=report.epochs,
                value=value,
                train_loss=report.train_loss,
                seconds=report.seconds,
                closing_seconds=self._owner.closing_seconds(self._parameters),
            )
        self._owner.observe_epoch(self.number, report, value)
        if last:  # whoever wants it to stop has it
            return
        if prunable and self._settled(report) and self.trial.should_prune():
            raise PruneTraining("pruned")
        self.check(seconds)

    def _prunable(self, report: EpochReport) -> bool:
        """Whether each epoch is reported: recording one costs more than training a small head.

        The warm-up of a trial that goes on to fine-tuning is never pruned.
        """
        if report.phase == "fine-tuning":
            return True
        return self.spec.frozen and self._costly

    def _settled(self, report: EpochReport) -> bool:
        """Whether enough epochs are behind that the last figure says something of the end."""
        if report.phase == "fine-tuning":
            return report.epoch + 1 - self.spec.warmup_epochs >= TUNED_BEFORE_PRUNING
        return 2 * (report.epoch + 1) >= report.epochs

    def _step(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= SAID_SECONDS or (done >= total and "prefix" in what):
            self._said = now
            self._owner.say("stage", what=what, done=done, total=total, number=self.number)
        self.check()
