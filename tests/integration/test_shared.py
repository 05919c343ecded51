"""One study in a database, searched from two folders as by two machines, whatever breaks."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from automl_tl import Study, join, storage
from automl_tl.cache import pixels
from automl_tl.errors import StudyError
from automl_tl.facts import facts_of, given_up
from automl_tl.study import KEEP_MODELS
from tests.commandline import CommandLine, tree
from tests.servers import mysql, postgres

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.servers import Server

__all__ = ["mysql", "postgres"]

SPACE = ("--backbone", "torch/tiny", "--set", "epochs=2..6", "--set", "depth=0.5..1")


@pytest.fixture
def machines(tmp_path: Path, photos: Path) -> tuple[CommandLine, CommandLine]:
    """Two folders with a cache each, and the same pictures under other names in ``photos``."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    shutil.copytree(photos, tmp_path / "one" / "photos")
    for number, path in enumerate(sorted(photos.glob("*/*.png"), reverse=True)):
        there = tmp_path / "two" / "photos" / path.parent.name / f"image-{number}.png"
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    one, two = (tmp_path / name for name in ("one", "two"))
    return CommandLine(one, one / "cache"), CommandLine(two, two / "cache")


def _study(server: Server, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage.open_storage(None, server.url))


def _check(study: optuna.Study, bound: int, workers: int) -> list[optuna.trial.FrozenTrial]:
    """Check what must hold at the end of every search, and return the trials."""
    trials = study.get_trials(deepcopy=False)
    assert [t.number for t in trials] == list(range(len(trials)))
    assert not [t for t in trials if t.state == TrialState.RUNNING]
    retried = [t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs]
    lost = [t.number for t in trials if given_up(t)]
    assert sorted(retried) == lost
    counted = [t for t in trials if t.state.is_finished() and not given_up(t)]
    assert bound <= len(counted) < bound + workers
    return trials


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mysql", marks=pytest.mark.slow)])
def test_two_machines_begin_the_same_study_at_once(
    machines: tuple[CommandLine, CommandLine],
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    server: Server = request.getfixturevalue(kind)
    files = tmp_path / "files"
    shared = ("--study", "both", "--storage", server.url, "--artifacts", str(files))
    command = ("search", "photos", *shared, "--trials", "5", *SPACE)
    _run_at_once(machines, command)
    trials = _check(_study(server, "both"), 5, 2)
    for machine in machines:  # every machine can export every model and knows the same best one
        assert "agrees with the trained model" in machine.run("export", "both", "-o", "model.onnx")
        assert machine.show("both")["state"]["running"] == 0
    listed = [name for t in trials for name in facts_of(t).get("files") or ()]
    dropped = sum("model" in name or "head" in name for name in listed) - KEEP_MODELS
    assert len(list(files.iterdir())) == len(listed) - max(0, dropped)


@pytest.mark.slow
def test_two_searches_in_one_folder_share_its_study(
    machines: tuple[CommandLine, CommandLine], postgres: Server
) -> None:
    machine, _ = machines
    shared = ("--study", "folder", "--storage", postgres.url)
    _run_at_once((machine, machine), ("search", "photos", *shared, "--trials", "4", *SPACE))
    trials = _check(_study(postgres, "folder"), 4, 2)
    assert machine.show("folder")["best"]["test"] is not None
    figures = machine.folder.glob("studies/folder/trials/*/validation_logits.npy")
    assert len(list(figures)) == sum(t.state == TrialState.COMPLETE for t in trials)


def _run_at_once(machines: tuple[CommandLine, CommandLine], command: tuple[str, ...]) -> None:
    both = [machine.start(*command) for machine in machines]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said


def test_who_is_overtaken_while_creating_a_study_joins_it(
    machines: tuple[CommandLine, CommandLine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))
    url = f"sqlite:///{tmp_path / 'study.db'}"
    read: list[Path] = []
    real = pixels.read_image_file

    def note(path: Path) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(pixels, "read_image_file", note)
    made = [
        Study.create(
            machine.folder / "s", machine.folder / "photos", backbones=["torch/tiny"], storage=url
        )
        for machine in machines[:1]
    ]
    found, looked = join.find, []

    def too_early(*arguments: object) -> object:
        looked.append(arguments)
        return found(*arguments) if len(looked) > 1 else (False, None)

    monkeypatch.setattr(join, "find", too_early)
    two = machines[1].folder
    read.clear()
    joined = Study.create(two / "s", two / "photos", backbones=["torch/tiny"], storage=url)
    assert len(looked) == 2
    assert set(Counter(read).values()) == {2}  # to begin the study, and to join it
    first, second = made[0]._data, joined._data
    assert first.names != second.names
    assert (first.hashes, first.splits) == (second.hashes, second.splits)


def _finished(server: Server, name: str) -> dict[int, TrialState]:
    """Return the trials that count: finished, and not tried again."""
    try:
        trials = _study(server, name).get_trials()
    except (KeyError, StudyError):  # not begun yet, or the server is away
        return {}
    return {t.number: t.state for t in trials if t.state.is_finished() and not given_up(t)}


def _files(trial: optuna.trial.FrozenTrial) -> list[str]:
    return list(facts_of(trial).get("files") or ())


def test_other_images_weights_or_options_do_not_mix(
    machines: tuple[CommandLine, CommandLine], postgres: Server
) -> None:
    one, two = machines
    shared = ("--study", "own", "--storage", postgres.url)
    one.run("search", "photos", *shared, "--trials", "1", *SPACE)
    said = two.run("search", "photos", *shared, "--seed", "5", code=2)
    assert "was begun with another --seed" in said
    said = two.run("search", "photos", *shared, "--artifacts", str(two.folder / "no"), code=2)
    assert "no that --artifacts names is not on this machine" in said
    assert not (two.folder / "no").exists()
    said = two.run("search", "photos", *shared, "--weights", "torch/tiny=none", code=2)
    assert "The weights of torch/tiny here are not those" in said
    moved = two.folder / "photos" / "circle" / "moved.png"
    next((two.folder / "photos" / "square").iterdir()).rename(moved)
    said = two.run("search", "photos", *shared, code=2)
    assert "1 image of it is not here" in said and "1 image here is not in it" in said
    assert not (two.folder / "studies" / "own").exists()
    said = one.run("search", "photos", *shared, "--set", "epochs=3", code=2)
    assert "was begun with another --set" in said


@pytest.mark.slow
def test_a_worker_waits_for_its_study_and_keeps_to_its_bounds(
    machines: tuple[CommandLine, CommandLine], postgres: Server
) -> None:
    one, two = machines
    shared = ("--study", "late", "--storage", postgres.url)
    assert "no study 'late'" in two.run("worker", "photos", *shared, "--wait", "1s", code=2)
    worker = two.start("worker", "photos", *shared)
    one.run("search", "photos", *shared, "--trials", "4", *SPACE)
    out, err = worker.communicate(timeout=300)
    assert worker.returncode == 0, f"{out}\n{err}"
    assert "Joining the study 'late'" in err and "until 4 trials" in err
    _check(_study(postgres, "late"), 4, 2)


@pytest.mark.parametrize(
    ("kind", "bound", "kills", "away"),
    [("postgres", 9, 3, 2.0), ("mysql", 9, 3, 2.0), ("postgres", 200, 60, 20.0)],
)
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_random_kills_and_a_database_that_stops_lose_nothing(
    machines: tuple[CommandLine, CommandLine],
    request: pytest.FixtureRequest,
    kind: str,
    bound: int,
    kills: int,
    away: float,
) -> None:
    """Three workers under two supervisors; a kill takes a framework, a worker or everything."""
    server: Server = request.getfixturevalue(kind)
    name = f"night-{bound}"
    shared = ("search", "photos", "--study", name, "--storage", server.url)
    commands = [
        (*shared, "--trials", str(bound), "--workers", workers, *SPACE) for workers in ("2", "1")
    ]
    draw = random.Random(1)
    running: dict[int, subprocess.Popen[str]] = {}
    finished: dict[int, TrialState] = {}
    outage: threading.Thread | None = None
    for kill in range(kills):
        while True:
            for index, machine in enumerate(machines):
                if index not in running or running[index].poll() is not None:
                    running[index] = machine.start(*commands[index])
            now = _finished(server, name)
            if len(now) >= bound * kill // kills:
                break
            time.sleep(0.5)
        assert {number: now[number] for number in finished} == finished
        finished = now
        time.sleep(draw.uniform(0, 4))
        if outage:
            outage.join()
        if kill == kills // 2:
            outage = threading.Thread(target=server.restart_after, args=(away,))
            outage.start()
            time.sleep(away)
            continue  # the searches wait meanwhile: see test_searches_wait_for_their_database
        victims = tree(running[draw.randrange(2)])
        what = draw.choice(("a worker or its framework", "everything"))
        print(f"{len(now)} finished; kill {what} of {len(victims)} processes")
        if what != "everything":
            victims = draw.sample(victims[1:], min(1, len(victims) - 1))
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
    for index, machine in enumerate(machines):
        if running[index].poll() is None:
            running[index].communicate(timeout=1800)
        machine.run(*commands[index])
    study = _study(server, name)
    trials = _check(study, bound, 3)
    assert {n: trials[n].state for n in finished} == finished
    print({state.name: sum(t.state == state for t in trials) for state in TrialState})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_searches_wait_for_their_database(
    machines: tuple[CommandLine, CommandLine], request: pytest.FixtureRequest, kind: str
) -> None:
    server: Server = request.getfixturevalue(kind)
    shared = ("search", "photos", "--study", "waits", "--storage", server.url, "--trials", "8")
    both = [machine.start(*shared, *SPACE) for machine in machines]
    while len(_finished(server, "waits")) < 3:
        assert [process.poll() for process in both] == [None, None]
        time.sleep(0.5)
    server.restart_after(20.0)
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = _check(_study(server, "waits"), 8, 2)
    assert not [t for t in trials if t.state == TrialState.FAIL]
