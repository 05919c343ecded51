"""What is left to do when a search ends: the test split, and whole models of what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from automl_tl import kept
from automl_tl.artifacts import bring
from automl_tl.errors import AutoMLError, StudyError
from automl_tl.facts import FACTS
from automl_tl.identify import identify
from automl_tl.space import TrialSpec
from automl_tl.study import KEEP_MODELS
from automl_tl.testsplit import test_trial, write_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from automl_tl.cache.activations import NeedPixels
    from automl_tl.cache.store import Store
    from automl_tl.host import BackendHost
    from automl_tl.ledger import Ledger
    from automl_tl.networks import Networks
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData
    from automl_tl.trial import TrialRunner


class Say(Protocol):
    """How a worker tells its supervisor."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Tell an event."""


class Closing:
    """Ends a search, in one of its workers.

    Args:
        directory: The study directory.
        data: The study's data.
        networks: Its networks and pixel arrays.
        store: The cache.
        ledger: Its trials, as of the last look.
        runner: Of the worker's trials.
        host: Returns the worker's process for a backend.
        need_pixels: See ``Activations``.
        say: Tells the supervisor.
    """

    def __init__(
        self,
        directory: StudyDirectory,
        data: StudyData,
        networks: Networks,
        store: Store,
        ledger: Ledger,
        runner: TrialRunner,
        host: Callable[[str], BackendHost],
        need_pixels: NeedPixels,
        say: Say,
    ) -> None:
        self._directory = directory
        self._data = data
        self._networks = networks
        self._store = store
        self._ledger = ledger
        self._runner = runner
        self._host = host
        self._need_pixels = need_pixels
        self._say = say

    def finish(self, number: int) -> None:
        """Compute a trial's figures on the unseen split, and write the models that are kept.

        Says ``tested`` after the one and ``closed`` after the other, which may take long.
        """
        try:
            bring(self._directory, self._ledger.study)
            self._test(number)
        except (AutoMLError, OSError) as error:
            self._say("warning", text=f"The test split was not evaluated: {error}")
        self._say("tested", number=number)
        for trial in self._ledger.best(KEEP_MODELS):
            if kept.model_file(self._directory, trial.number):
                self._whole(trial.number)
        self._say("closed", number=number)

    def _test(self, number: int) -> None:
        if kept.model_file(self._directory, number) is None:
            raise StudyError(
                f"the model of trial {number} is gone: put {self._directory.model(number)} back, "
                "or search further with `automl-tl resume`, which keeps models of better trials."
            )
        spec = self._ledger[number].user_attrs[FACTS]["spec"]
        head = self._directory.head(number)
        if not head.is_file():
            kept.check(self._directory.model(number))
            host = self._host(_backend(spec))
            pixels, _ = self._networks.pixels(TrialSpec.of(spec))
            self._need_pixels(pixels, self._step)
            test_trial(self._directory, self._data, number, pixels, host)
            return
        logits = self._runner.head_logits(
            TrialSpec.of(spec),
            identify(head).facts.head,
            kept.head_weights(head),
            "test",
            self._step,
        )
        write_test(self._directory, self._data, number, logits)

    def _step(self, what: str, done: int, total: int) -> None:
        self._say("stage", what=what, done=done, total=total)

    def _whole(self, number: int) -> None:
        host = self._host(_backend(self._ledger[number].user_attrs[FACTS]["spec"]))
        try:
            kept.whole_model(self._directory, number, host, self._store)
        except (AutoMLError, OSError) as error:
            self._say("warning", text=f"The model of trial {number} is not written: {error}")


def _backend(spec: dict[str, Any]) -> str:
    return str(spec["backbone"]).partition("/")[0]
