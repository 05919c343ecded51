"""The commands on one real, small study: search, show, resume, export, predict, evaluate."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from automl_tl.cli.errors import run

pytest.importorskip("automl_tl_torch", reason="the PyTorch plugin is not installed")

COLOURS = {"[red]": (200, 40, 40), "grün": (40, 180, 60), "blue": (30, 60, 210)}
PER_CLASS = 14
QUICK = ("--backbone", "torch/tiny", "--set", "epochs=2", "--set", "warmup_epochs=1")


class Done(NamedTuple):
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Place:
    """A directory to run commands in."""

    root: Path

    def run(self, *arguments: object, code: int = 0) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.root)
            patch.setenv("AUTOML_TL_CACHE", str(self.root / "cache"))
            found = run([str(argument) for argument in arguments])
        assert found == code, err.getvalue()
        assert "Traceback" not in err.getvalue()
        return Done(out.getvalue(), err.getvalue())

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("commands")
    draws = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = root / "photos" / name
        folder.mkdir(parents=True)
        for number in range(PER_CLASS):
            noise = draws.integers(-30, 30, (24, 24, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (root / "photos" / "blue" / "broken.png").write_bytes(b"no image")
    return Place(root)


@pytest.fixture(scope="module")
def searched(place: Place) -> tuple[Place, Done]:
    return place, place.run("search", "photos", "--trials", 2, *QUICK)


@pytest.fixture(scope="module")
def exported(searched: tuple[Place, Done]) -> Place:
    place, _ = searched
    report = place.run("export", "photos", "-o", "model.onnx").stdout
    assert "model.onnx (onnx, " in report
    assert "agrees with the trained model on" in report
    return place


def test_search_prints_a_line_a_trial_and_the_result(searched) -> None:
    _, done = searched
    lines = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    assert [line.split()[:2] for line in lines] == [["trial", "0"], ["trial", "1"]]
    assert all("torch/tiny" in line for line in lines)
    assert "study photos starts: 3 classes" in done.stderr
    assert "best: trial" in done.stdout
    assert "95 % interval" in done.stdout
    assert "automl-tl export photos -o model.onnx" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_same_study_again_is_an_error_that_says_resume(searched) -> None:
    place, _ = searched
    error = place.run("search", "photos", *QUICK, code=2).stderr
    assert "automl-tl resume photos" in error
    assert "--study" in error


def test_show(searched) -> None:
    place, _ = searched
    text = place.run("show", "photos").stdout
    assert "3 classes, 1 broken image left out" in text
    assert text.count("torch/tiny") >= 2
    assert "Test accuracy" in text


def test_show_json_is_the_summary(searched) -> None:
    from automl_tl import Study

    place, _ = searched
    summary = place.json("show", "photos")
    assert summary == json.loads(json.dumps(Study.open(place.root / "studies/photos").summary()))
    assert summary["classes"] == sorted(COLOURS)
    assert summary["state"]["complete"] >= 1
    assert summary["data"]["broken"][0]["name"] == "blue/broken.png"


def test_resume_counts_trials_in_all(searched) -> None:
    place, _ = searched
    before = place.json("show", "photos")["trials"]
    done = place.run("resume", "./studies/photos", "--trials", len(before) + 1)
    assert f"resumes with {len(before)} finished trials" in done.stderr
    after = place.json("show", "photos")["trials"]
    assert [trial["number"] for trial in after] == [*range(len(before) + 1)]
    assert after[: len(before)] == before


def test_only_the_best_trial_is_called_the_best(exported: Place) -> None:
    best = exported.json("show", "photos")["best"]["trial"]
    other = next(
        trial["number"]
        for trial in exported.json("show", "photos")["trials"]
        if trial["state"] == "complete" and trial["number"] != best
    )
    exported.run("export", "photos", "-o", "other.safetensors", "--trial", other)
    (card,) = exported.root.glob("other*.md")
    assert "Choosing the best of" not in card.read_text(encoding="utf-8")
    assert any(
        "Choosing the best of" in found.read_text(encoding="utf-8")
        for found in exported.root.glob("model*.md")
    )


def test_predict_text_json_and_csv(exported: Place) -> None:
    images = ["photos/[red]/00.png", "photos/grün/00.png", "photos/blue/00.png"]
    lines = exported.run("predict", "model.onnx", *images, "--top", 2).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == images
    assert all(line.count("%") == 2 for line in lines)
    found = exported.json("predict", "model.onnx", *images)
    assert [image["path"] for image in found] == images
    for image, line in zip(found, lines, strict=True):
        assert sum(c["probability"] for c in image["classes"]) == pytest.approx(1, abs=1e-5)
        assert line.partition(": ")[2].startswith(image["classes"][0]["class"])
    table = exported.run("predict", "model.onnx", *images, "--top", 1, "--csv").stdout
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["class"] for row in rows] == [image["classes"][0]["class"] for image in found]


def test_predict_goes_on_after_a_broken_image(exported: Place) -> None:
    images = ["photos/blue/broken.png", "nowhere.png", "photos/blue/00.png"]
    done = exported.run("predict", "model.onnx", *images)
    assert done.stdout.startswith("photos/blue/00.png: ")
    assert [line.partition(": ")[2].partition(":")[0] for line in done.stderr.splitlines()] == [
        "photos/blue/broken.png",
        "nowhere.png",
    ]
    exported.run("predict", "model.onnx", "nowhere.png", code=2)


def test_evaluate(exported: Place) -> None:
    facts = exported.json("evaluate", "model.onnx", "photos")
    assert facts["n"] == 3 * PER_CLASS
    assert [row["support"] for row in facts["classes"]] == [PER_CLASS] * 3
    text = exported.run("evaluate", "model.onnx", "photos").stdout
    assert f"on {3 * PER_CLASS} images" in text
    assert "[red]" in text
    assert "left out: blue/broken.png" in text


def test_wrong_exports_leave_nothing(searched) -> None:
    place, _ = searched
    for arguments in (["-o", "x.zip"], ["-o", "x.onnx", "--trial", "999"], ["-o", "photos"]):
        error = place.run("export", "photos", *arguments, code=2).stderr
        assert error.startswith("Error: ") and len(error.splitlines()) == 1
    assert not [*place.root.glob("x*")]


def test_data_check(place: Place) -> None:
    done = place.run("data", "check", "photos")
    assert "43 images, 42 sound (42 PNG)" in done.stdout
    assert "  blue/broken.png: not an image" in done.stdout
    assert " [red] " in done.stdout
    assert place.json("data", "check", "photos")["good"] == 42


def test_data_check_fails_where_a_search_would(place: Place) -> None:
    for name in ("a", "b"):
        (place.root / "few" / name).mkdir(parents=True)
        image = place.root / "photos" / "blue" / "00.png"
        (place.root / "few" / name / "one.png").write_bytes(image.read_bytes())
    done = place.run("data", "check", "few", "--json", code=2)
    assert json.loads(done.stdout)["problem"]
    assert done.stderr.startswith("Error: ")


def test_inventory(place: Place) -> None:
    tiny = next(row for row in place.json("backbones", "torch/*") if row["key"] == "torch/tiny")
    assert tiny["weights_state"] == "shipped"
    assert Path(tiny["weights_path"]).is_file()
    assert "torch/tiny *" in place.run("backbones", "tiny").stdout
    plugins = {row["name"]: row for row in place.json("plugins")}
    assert plugins["torch"]["provides"]["backends"] == ["torch"]
    assert "automl-tl-torch" in place.run("plugins").stdout


def test_doctor(place: Place) -> None:
    facts = place.json("doctor")
    assert facts["problems"] == []
    backend = next(row for row in facts["backends"] if row["name"] == "torch")
    assert "cpu" in backend["devices"]
    assert backend["packages"]["torch"]
    assert any(row["backbone"] == "torch/tiny" for row in facts["weights"])


def test_cache_shows_and_clears(searched) -> None:
    place, _ = searched
    before = place.json("cache", "show")
    assert before["bytes"] > 0
    assert {row["kind"] for row in before["kinds"]} >= {"pixels"}
    assert "freed" in place.run("cache", "clear").stdout
    assert place.json("cache", "show")["bytes"] == 0
    assert place.json("show", "photos")["best"]
