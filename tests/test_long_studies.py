"""One more trial costs a long study what it costs a short one."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from automl_tl import storage
from automl_tl.facts import FACTS
from automl_tl.indexed import IndexedStorage
from automl_tl.journal import Journal
from automl_tl.ledger import Ledger
from automl_tl.prospects import Prospects

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from automl_tl.space import TrialSpec

STATES = [None, *((state,) for state in TrialState), (TrialState.COMPLETE, TrialState.RUNNING)]


def _open(path: Path, direction: str = "maximize") -> optuna.Study:
    if not (path / storage.JOURNAL).exists():
        storage.create_optuna(path, None, "s", direction)
    return storage.open_optuna(path, None, "s", 0)


def _step(study: optuna.Study, draw: random.Random, running: list[optuna.Trial]) -> None:
    """Do something that a worker may do to a study."""
    if running and draw.random() < 0.6:
        trial = running.pop(draw.randrange(len(running)))
        match draw.choice(("complete", "prune", "fail")):
            case "complete":
                if draw.random() < 0.3:
                    trial.set_user_attr(FACTS, {"twin_of": 0})
                trial.study.tell(trial, float(draw.randrange(5)))
            case "prune":
                trial.study.tell(trial, state=TrialState.PRUNED)
            case _:
                trial.study.tell(trial, state=TrialState.FAIL)
    elif draw.random() < 0.2:
        study.enqueue_trial({"x": 0.5})
    else:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        running.append(trial)


def _same(ours: list[FrozenTrial], theirs: list[FrozenTrial]) -> bool:
    def kept(trials: list[FrozenTrial]) -> list[Any]:
        return [(t.number, t.state, t.values, t.system_attrs) for t in trials]

    return kept(ours) == kept(theirs)


def test_lists_are_optunas_whoever_writes(tmp_path: Path) -> None:
    draw, running = random.Random(0), list[optuna.Trial]()
    study, beside = _open(tmp_path), _open(tmp_path)
    for number in range(120):
        _step(study if number % 3 else beside, draw, running)
        if number % 10 == 0:
            plain = JournalStorage(Journal(tmp_path / storage.JOURNAL))
            for states in STATES:
                theirs = plain.get_all_trials(0, states=states)
                for one in (study, beside):
                    assert isinstance(one._storage, IndexedStorage)
                    assert _same(one.get_trials(states=states), theirs), states
    with pytest.raises(KeyError):
        study._storage.get_all_trials(7)


def test_a_list_that_was_handed_out_stays_as_it_was(tmp_path: Path) -> None:
    study = _open(tmp_path)
    first = study.ask()
    before = study.get_trials(deepcopy=False)
    study.tell(first, 1.0)
    study.ask()
    assert [trial.state for trial in before] == [TrialState.RUNNING]
    copied = study.get_trials()
    copied[0].user_attrs["x"] = 1
    assert "x" not in study.get_trials()[0].user_attrs


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_ledger_says_what_a_look_at_all_trials_says(tmp_path: Path, direction: str) -> None:
    draw, running = random.Random(1), list[optuna.Trial]()
    study, beside = _open(tmp_path, direction), _open(tmp_path)
    ledger, seen = Ledger(study), Counter[int]()
    sign = -1 if direction == "maximize" else 1
    for number in range(150):
        _step(study if number % 2 else beside, draw, running)
        if number % 7:
            continue
        seen.update(trial.number for trial in ledger.look())
        trials = study.get_trials()
        finished = [t.number for t in trials if t.state.is_finished()]
        assert seen == Counter(finished) and len(ledger) == len(finished)
        assert [t.number for t in ledger.open] == [
            t.number for t in trials if not t.state.is_finished()
        ]
        assert [t.number for t in ledger.latest(5)] == finished[-5:]
        real = [t for t in trials if t.state == TrialState.COMPLETE and not t.user_attrs]
        best = [t.number for t in sorted(real, key=lambda t: (sign * t.value, t.number))]
        assert [t.number for t in storage.best_trials(study)] == best
        assert [t.number for t in ledger.best(3)] == best[:3]
        assert [t.number for t in ledger.best(4, before=20)] == [n for n in best if n < 20][:4]
        assert all(_same([ledger[n]], [trials[n]]) for n in finished)


class _Counting(dict[int, Any]):
    """Counts how often a trial is looked up."""

    looked = 0

    def __getitem__(self, key: int) -> Any:
        self.looked += 1
        return super().__getitem__(key)


def test_one_more_trial_looks_at_as_many_trials_in_a_long_study(tmp_path: Path) -> None:
    study = _open(tmp_path)
    assert isinstance(study._storage, IndexedStorage)
    replayed = study._storage._replay_result
    trials = replayed._trials = _Counting(replayed._trials)
    ledger, looked = Ledger(study), []
    for number in range(400):
        before = trials.looked
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        study.tell(trial, x if number % 50 else 2.0)
        ledger.look()
        ledger.best(3)
        looked.append(trials.looked - before)
    early, late = looked[180:200], looked[380:400]
    assert sum(late) <= sum(early) + len(late), (early, late)


def test_prospects_of_a_long_study_are_counted_by_kind() -> None:
    prospects = Prospects(1)
    for number in range(1000):
        spec = {"backbone": "torch/tiny", "flip": True}
        prospects.learn(number, {"spec": spec, "fine_tune_at": number % 4, "layers": 8})
    assert len(prospects._counts) == 4

    class Spec:
        backbone, flip = "torch/tiny", True
        image_size = resize = augmentation = rotation = crop = colour = None

    prospects.left = 1001
    spec: TrialSpec = Spec()  # type: ignore[assignment]
    assert prospects.later(spec, 3) == pytest.approx(250.5)
    assert prospects.later(spec, 0) == pytest.approx(1000.5)
