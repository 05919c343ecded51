from __future__ import annotations

import json
from itertools import product
from math import comb

import numpy as np
import pytest
from PIL import Image

from automl_tl.cli.errors import run
from automl_tl.compare_models import compare_models, describe, mcnemar
from automl_tl.errors import DataError
from automl_tl.evaluate import evaluate


@pytest.fixture
def worse(write_onnx, weights, make_onnx):
    """A model that takes red for green, with its classes in another order."""
    changed = weights[:, [2, 0, 1]].copy()  # red, blue, green
    changed[:, 2] += 2 * changed[:, 0]
    return write_onnx("worse.onnx", make_onnx(changed, 8), classes=("red", "blue", "green"))


@pytest.fixture
def compare(tmp_path):
    def run(*arguments, **options):
        return compare_models(
            *arguments, cache_directory=tmp_path / "cache", datasets={}, **options
        )

    return run


def exact(only_a, only_b):
    """Add up the probabilities of all outcomes that are no likelier than the one seen."""
    n = only_a + only_b
    seen = comb(n, only_a)
    return sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= seen) / 2**n


def test_mcnemar_counts_only_what_differs():
    for only_a, only_b in product(range(7), repeat=2):
        a = np.array([True] * (3 + only_a) + [False] * (only_b + 2))
        b = np.array([True] * 3 + [False] * only_a + [True] * only_b + [False] * 2)
        found = mcnemar(a, b)
        counts = (found["both"], found["only_a"], found["only_b"], found["neither"])
        assert counts == (3, only_a, only_b, 2)
        assert found["p"] == pytest.approx(exact(only_a, only_b))


def test_the_sentence():
    assert describe({"only_a": 5, "only_b": 12, "p": exact(5, 12)}) == (
        "B is right on 12 images where A is wrong, and wrong on 5 where A is right; were both "
        "equally good, so large a difference would arise by chance with p = 0.14."
    )
    assert "on 1 image where" in describe({"only_a": 0, "only_b": 1, "p": 1.0})
    assert describe({"only_a": 0, "only_b": 30, "p": exact(0, 30)}).endswith("p < 0.001.")
    assert "nothing tells them apart" in describe({"only_a": 0, "only_b": 0, "p": 1.0})


def test_two_models_side_by_side(compare, write_onnx, worse, photos, tmp_path):
    (photos / "green" / "broken.jpg").write_text("no photo")
    done = []
    good = write_onnx()
    found = compare(good, worse, photos, progress=lambda *state: done.append(state))
    assert json.loads(json.dumps(found)) == found
    a, b = found["models"]
    assert (a["accuracy"], b["accuracy"]) == (1, pytest.approx(6 / 9))
    assert [row["name"] for row in b["classes"]] == ["blue", "green", "red"]
    assert b["confusion"] == [[3, 0, 0], [0, 3, 0], [0, 3, 0]]
    assert [image["name"] for image in a["broken"]] == ["green/broken.jpg"]
    assert found["mcnemar"] == {"both": 6, "only_a": 3, "only_b": 0, "neither": 0, "p": 0.25}
    assert "wrong on 3 where A is right" in found["sentence"]
    assert done[0] == (1, 20) and done[-1] == (20, 20)
    alone = evaluate(worse, photos, cache_directory=tmp_path / "cache", datasets={})
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "n"):
        assert b[name] == pytest.approx(alone[name])


def test_an_image_that_one_cannot_use_counts_for_neither(
    compare, write_onnx, weights, make_onnx, photos
):
    Image.new("RGB", (9, 9), (255, 255, 255)).save(photos / "red" / "white.png")
    too_large = np.float32(2.5e36) + weights * np.float32(1e36)  # white sums up to infinity
    found = compare(write_onnx("a.onnx"), write_onnx("b.onnx", make_onnx(too_large, 8)), photos)
    a, b = found["models"]
    assert a["n"] == b["n"] == 9
    assert (
        a["broken"]
        == b["broken"]
        == [{"name": "red/white.png", "reason": "the model returns NaN or infinite logits for it"}]
    )


def test_both_must_know_the_same_classes(compare, write_onnx, photos):
    a, b = write_onnx("a.onnx"), write_onnx("b.onnx", classes=("blue", "green", "rot"))
    with pytest.raises(DataError, match=r"a\.onnx knows 'red' and .*b\.onnx does not; "):
        compare(a, b, photos)
    with pytest.raises(DataError, match=r"b\.onnx knows 'rot' and .*a\.onnx does not; "):
        compare(b, a, photos)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_the_command_compares_prints_and_saves(cli, write_onnx, worse, photos, tmp_path):
    saved = tmp_path / "figures.json"
    code, out, _ = cli("evaluate", write_onnx(), worse, photos, "-o", saved)
    assert code == 0
    assert "A: model.onnx" in out and "B: worse.onnx" in out
    assert "95 % interval" in out and "wrong on 3 where A is right" in out
    figures = json.loads(saved.read_text(encoding="utf-8"))
    code, out, _ = cli("evaluate", write_onnx(), worse, photos, "--json")
    printed = json.loads(out)
    assert figures.pop("seconds") > 0 and printed.pop("seconds") > 0
    assert figures == printed


def test_the_command_saves_the_figures_of_one_model(cli, write_onnx, photos, tmp_path):
    saved = tmp_path / "figures.json"
    assert cli("evaluate", write_onnx(), photos, "-o", saved)[0] == 0
    assert json.loads(saved.read_text(encoding="utf-8"))["accuracy"] == 1


def test_wrong_arguments_are_one_sentence(cli, write_onnx, photos, tmp_path):
    model = write_onnx()
    for arguments, told in (
        ((model,), "one or two models and then DATA"),
        ((model, model, model, photos), "one or two models and then DATA"),
        ((model, photos, "-o", tmp_path / "no" / "such.json"), "an existing folder"),
        ((model, photos, "-o", tmp_path), "an existing folder"),
    ):
        code, _, error = cli("evaluate", *arguments)
        assert code == 2 and told in error and error.count("\n") == 1
