from __future__ import annotations

import json
import random
import shlex
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pytest
import tomli_w

from automl_tl import metrics
from automl_tl.cli.config import from_file
from automl_tl.database_errors import place, redacted
from automl_tl.plugins import get_plugins
from automl_tl.report import failures, trials
from automl_tl.report.again import command, options
from automl_tl.report.findings import findings
from automl_tl.report.images import Images
from automl_tl.settings import parse_setting
from automl_tl.study_config import Config
from tests.report.conftest import BEGUN, Made, make

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_is_plain_data(made: Made) -> None:
    facts = made.facts()
    again = json.loads(json.dumps(facts, allow_nan=False))
    assert again["answer"]["trial"] == facts["search"]["listed"][0]["number"]
    values = [row["value"] for row in facts["search"]["listed"] if row["value"] is not None]
    assert values == sorted(values, reverse=True)
    assert facts["answer"]["latency"]["problem"].startswith("The latency is not known")
    assert set(facts["failures"]) == {"validation", "test"}
    assert facts["study"]["reference"] == "made"


def test_without_a_complete_trial_there_is_no_answer(empty: Made) -> None:
    study = empty.study
    empty.add(study)
    facts = empty.facts()
    assert facts["answer"] is None
    assert facts["failures"] == {}
    assert facts["calibration"] is None
    assert facts["search"]["listed"][0]["state"] == "pruned"


def test_a_model_of_which_the_head_alone_is_written_is_not_gone(empty: Made) -> None:
    empty.add(empty.study, empty.logits("validation", 0.9))
    answer = empty.facts()["answer"]
    assert answer["latency"]["problem"].endswith("because the model's file is gone.")
    empty.directory.head(0).write_bytes(b"a head")
    answer = empty.facts()["answer"]
    assert "gone" not in answer["latency"]["problem"]
    assert "the search's end or `automl-tl export` writes it" in answer["latency"]["problem"]


def test_a_twin_is_listed_and_has_neither_rank_nor_vote(empty: Made) -> None:
    study = empty.study
    logits = empty.logits("validation", 0.9)
    for twin in ({}, {"twin_of": 0}, {}, {}):
        empty.add(study, logits, **twin)
    facts = empty.facts()
    assert [row["number"] for row in facts["search"]["listed"]] == [0, 2, 3, 1]
    assert [row["number"] for row in facts["curves"]] == [0, 2, 3]
    assert facts["doubtful"]["voters"] == 3


def test_the_most_confident_mistakes_come_first_with_their_reasons(empty: Made) -> None:
    rows = empty.data.rows("validation")
    labels = empty.data.labels[rows]
    logits = np.full((len(rows), 3), 0.0, np.float32)
    logits[np.arange(len(rows)), labels] = 3.0
    wrong = (labels[:3] + 1) % 3
    logits[[0, 1, 2], wrong] = [4.0, 9.0, 5.0]
    logits[3] = [1.0, 1.0, 1.1]  # nobody is certain of this one
    right = np.zeros_like(logits)
    right[np.arange(len(rows)), labels] = 3.0
    shared = right.copy()
    shared[1, wrong[1]] = 9.0
    said = np.stack([one.argmax(axis=1) for one in (logits, shared, shared, shared, right)])
    mean = metrics.probabilities(logits)
    found = failures.split_facts(logits, rows, empty.data, failures.Votes(said, mean))
    assert [image["row"] for image in found["mistakes"]][:3] == rows[[1, 2, 0]].tolist()
    assert "4 of 5 trials say the same: look at the label." in found["mistakes"][0]["why"]
    assert "4 of 5 trials get it right" in found["mistakes"][1]["why"]
    assert found["hard"]["most"] == 1
    assert found["wrong"] == sum(logits.argmax(axis=1) != labels)
    shown = {image["row"] for image in found["mistakes"]}
    assert not shown & {image["row"] for image in found["uncertain"]}
    assert sum(map(sum, found["matrix"]["counts"])) == len(rows)
    assert found["pairs"][0]["count"] >= found["pairs"][-1]["count"] > 0


def test_a_label_that_all_trials_contradict_is_a_candidate(empty: Made) -> None:
    study = empty.study
    labels = empty.data.labels[empty.data.rows("validation")]
    for _ in range(4):
        logits = np.zeros((len(labels), 3), np.float32)
        logits[np.arange(len(labels)), labels] = 5.0
        logits[7, (labels[7] + 1) % 3] = 9.0
        empty.add(study, logits)
    doubtful = empty.facts()["doubtful"]
    assert (doubtful["voters"], doubtful["count"]) == (4, 1)
    assert doubtful["images"][0]["row"] == empty.data.rows("validation")[7]


def test_many_classes_are_capped(tmp_path: Path) -> None:
    many = make(tmp_path, classes=tuple(f"class {i}" for i in range(150)), images=10, picture=False)
    logits = many.logits("validation", 0.7)
    found = failures.split_facts(logits, many.data.rows("validation"), many.data, None)
    assert len(found["matrix"]["classes"]) == failures.CLASSES
    assert found["matrix"]["of"] == 150
    recalls = [row["recall"] for row in found["classes"]]
    assert len(recalls) == failures.LISTED_CLASSES
    assert recalls == sorted(recalls)


def test_the_clock_stands_still_between_searches_and_workers_have_lanes(empty: Made) -> None:
    study = optuna.create_study()
    spans = [(0, 10, 1), (2, 12, 2), (3600, 3610, 3)]
    for start, end, pid in spans:
        trial = optuna.trial.create_trial(value=0.5, user_attrs={"owner": {"pid": pid}})
        trial.datetime_start = BEGUN + timedelta(seconds=start)
        trial.datetime_complete = BEGUN + timedelta(seconds=end)
        study.add_trial(trial)
    found = trials.rows(study)
    assert [(row["start"], row["end"]) for row in found] == [(0, 10), (2, 12), (12, 22)]
    assert [row["lane"] for row in found] == [0, 1, 0]


def test_the_frontier_and_the_groups() -> None:
    rows = [
        {"number": i, "value": v, "cost_s": c, "duration_s": c, "backbone": b}
        for i, (v, c, b) in enumerate(
            [
                (0.8, 10, "a/x"),
                (0.7, 5, "a/y"),
                (0.75, 7, "a/x"),
                (0.6, 6, "a/x"),
                (0.9, None, "a/y"),
            ]
        )
    ]
    assert [row["number"] for row in trials.frontier(rows, "accuracy")] == [1, 2, 0]
    assert [row["number"] for row in trials.frontier(rows, "log_loss")] == [1, 3]
    groups = trials.groups(rows, "backbone", "accuracy")
    assert [(row["name"], row["best"], row["trials"]) for row in groups] == [
        ("a/y", 0.9, 2),
        ("a/x", 0.8, 3),
    ]


def test_where_the_time_went(empty: Made) -> None:
    study = empty.study
    empty.add(study, empty.logits("validation", 0.9))
    empty.add(study)
    spent = empty.facts()["time"]
    # 4 epochs of 2 s hold 3 s of frozen layers; the trial took 18 s, the pruned one, too.
    assert [part["seconds"] for part in spent["parts"]] == [5.0, 3.0, 10.0, 18.0]
    assert (spent["saved_s"], spent["search_s"]) == (9.0, 36.0)


def test_copies_and_look_alikes_are_found(empty: Made) -> None:
    data = empty.data
    hashes = list(data.hashes)
    hashes[1] = hashes[0]
    hashes[4] = hashes[3]
    images = Images(empty.directory, data, empty.store)
    squares = {row: images.square(row) for row in range(len(data.names))}
    train, test = data.rows("train")[10], data.rows("test")[0]
    ramp = np.repeat(np.linspace(0, 255, 24).astype(np.uint8)[None, :, None], 24, axis=0)
    picture = np.ascontiguousarray(np.repeat(ramp, 3, axis=2)[:, ::-1])
    squares[train] = squares[test] = picture
    images.square = squares.__getitem__  # type: ignore[method-assign]
    found = findings(replace(data, hashes=tuple(hashes)), images)
    assert found["copies_count"] == found["mixed_count"] == 2
    assert {one["name"] for one in found["copies"][0]} == {data.names[0], data.names[1]}
    assert [pair["rows"] for pair in found["look_alikes"]["pairs"]] == [
        sorted([int(train), int(test)])
    ]
    assert found["look_alikes"]["tested"] == 1


def test_the_command_asks_the_same_again(tmp_path: Path) -> None:
    settings = {
        "depth": [0, 0.25],
        "optimizer": "adam",
        "flip": False,
        "learning_rate": {"low": 1e-4, "high": 1e-2},
        "head_units": [[256], [512, 64]],
    }
    config = Config(
        "my study", "/photos/it's mine", ("torch/a", "keras/b"), {"torch/a": "none"}, settings
    )
    words = shlex.split(command(config, {"trials": 8, "time": 90.0, "target": None}))
    assert words[:3] == ["automl-tl", "search", "/photos/it's mine"]
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert dict(parse_setting(text) for text in given) == settings
    assert words[words.index("--time") + 1] == "90s"
    file = tmp_path / "search.toml"
    file.write_text(tomli_w.dumps(options(config, {"trials": 8})), encoding="utf-8")
    read = from_file(file)
    assert (read.data, read.backbone, read.trials) == (config.data, config.backbones, 8)
    assert dict(read.set) == settings
    stepped = replace(config, settings={"dropout": {"low": 0.0, "high": 0.5, "step": 0.25}})
    assert command(stepped, {}) == "automl-tl search --config search.toml"


def test_the_first_trials_are_asked_for_again(tmp_path: Path) -> None:
    first = ({"backbone": "torch/tiny", "depth": 0, "head_units": [64]}, {"learning_rate": 0.003})
    config = Config("s", "/d", ("torch/tiny",), first=first)
    assert command(config, {}) == "automl-tl search --config search.toml"
    file = tmp_path / "search.toml"
    file.write_text(tomli_w.dumps(options(config, {})), encoding="utf-8")
    assert from_file(file).first == first


def test_only_weights_that_another_machine_would_not_have_are_named() -> None:
    published = get_plugins().backbone("torch/tiny").pretrained
    assert published is not None
    weights = {"torch/tiny": str(published.path()), "torch/mobilenet_v2": "/mine.pth"}
    config = Config("s", "d", tuple(weights), weights, log=("tensorboard", "mlflow"))
    words = shlex.split(command(config, {}))
    assert [words[i + 1] for i, w in enumerate(words) if w == "--weights"] == [
        "torch/mobilenet_v2=/mine.pth"
    ]
    assert [words[i + 1] for i, w in enumerate(words) if w == "--log"] == ["tensorboard", "mlflow"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host/name", "postgresql://me:***@host/name"),
        ("postgresql://me@srv:s3cret@host/name", "postgresql://me%40srv:***@host/name"),
        ("mysql://me:two s3cret?@host/name?charset=utf8", "mysql://***"),
        ("mysql://me:two s3cret@host/name?charset=x", "mysql://me:***@host/name?charset=x"),
        ("postgresql://host/name?user=me&password=s3cret", "postgresql://host/name?user=me"),
        ("mysql://host/name?passwd=s3cret", "mysql://host/name"),
        ("postgresql://host/name?sslpassword=s3cret", "postgresql://host/name"),
        ("postgresql://me:an@s3cret@host/name", "postgresql://***"),
        ("postgresql://me:an@other/s3cret@host/name", "postgresql://***"),
        ("postgresql://me:s3cret@host:port/name", "postgresql://***"),
        ("postgresql://me@host/name?sslmode=require", "postgresql://me@host/name?sslmode=require"),
        ("sqlite:////home/me/what?.db", "sqlite:////home/me/what?.db"),
    ],
)
def test_passwords_are_left_out(url: str, shown: str) -> None:
    assert redacted(url) == shown
    config = Config("s", "d", (), storage=url)
    assert options(config, {})["storage"] == shown
    assert "s3cret" not in command(config, {}) + place(url)


def test_the_clock_counts_what_lies_before_a_moment() -> None:
    draw = random.Random(0)
    spans = [(start, start + draw.randrange(9)) for start in draw.sample(range(300), 40)]
    busy = {second for start, end in spans for second in range(start, end)}
    clock = trials._Clock(
        [(BEGUN + timedelta(seconds=a), BEGUN + timedelta(seconds=b)) for a, b in spans]
    )
    for when in range(-5, 320):
        expected = sum(second < when for second in busy)
        assert clock.at(BEGUN + timedelta(seconds=when)) == expected, when
