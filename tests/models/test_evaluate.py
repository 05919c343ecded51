from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from automl_tl import metrics
from automl_tl.errors import DataError
from automl_tl.evaluate import evaluate
from automl_tl.modelfile import source_id
from automl_tl.predict import open_model


@pytest.fixture
def measure(write_onnx, tmp_path):
    def run(data, model=None, **options):
        return evaluate(
            model or write_onnx(), data, cache_directory=tmp_path / "cache", datasets={}, **options
        )

    return run


def test_figures(measure, photos):
    # One of the blue pictures lies in the wrong folder, one file is broken.
    (photos / "blue" / "0.png").rename(photos / "red" / "wrong.png")
    (photos / "green" / "broken.jpg").write_text("no photo")
    done = []
    found = measure(photos, progress=lambda *state: done.append(state))
    assert json.loads(json.dumps(found)) == found
    assert found["n"] == 9 and found["accuracy"] == pytest.approx(8 / 9)
    assert found["interval"] == pytest.approx(list(metrics.interval(8, 9)))
    assert found["confusion"] == [[2, 0, 0], [0, 3, 0], [1, 0, 3]]
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    blue, green, red = found["classes"]
    assert [c["name"] for c in found["classes"]] == ["blue", "green", "red"]
    assert (blue["precision"], blue["recall"], blue["support"]) == (pytest.approx(2 / 3), 1, 2)
    assert (red["precision"], red["recall"], red["support"]) == (1, pytest.approx(3 / 4), 4)
    assert green["f1"] == 1
    assert [b["name"] for b in found["broken"]] == ["green/broken.jpg"]
    assert "not an image" in found["broken"][0]["reason"]
    assert done[-1] == (10, 10)
    assert (found["study"], found["trial"], found["backbone"]) == ("colours", 7, "torch/tiny")


def test_the_calibration_error_is_that_of_the_probabilities(measure, write_onnx, photos, weights):
    (photos / "blue" / "0.png").rename(photos / "red" / "wrong.png")
    with open_model(write_onnx()) as predictor:
        found = list(predictor.classify([photos]))
    sure = np.array([one.ranked[0][1] for one in found])
    right = np.array([one.path.parent.name == one.ranked[0][0] for one in found])
    bins = (sure * 10).astype(int).clip(0, 9)
    by_hand = sum(
        (bins == b).mean() * abs(sure[bins == b].mean() - right[bins == b].mean())
        for b in set(bins)
    )
    assert measure(photos)["calibration_error"] == pytest.approx(by_hand)
    assert by_hand > 0.05


def test_classes_are_matched_by_name_not_by_number(measure, photos):
    for image in (photos / "blue").iterdir():
        image.unlink()
    (photos / "blue").rmdir()
    found = measure(photos)  # green is class 0 of the data and class 1 of the model
    assert found["accuracy"] == 1 and found["n"] == 6
    assert found["classes"][0]["support"] == 0 and found["classes"][0]["recall"] is None


def test_letters_may_be_composed_or_not(write_onnx, tmp_path, measure):
    names = [unicodedata.normalize("NFD", name) for name in ("grün", "weiß-é")]
    for name, colour in zip(names, ("green", "blue"), strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(tmp_path / "data" / name / "1.png")
    for form in ("NFC", "NFD"):
        names = tuple(unicodedata.normalize(form, n) for n in ("weiß-é", "grün", "red"))
        found = measure(tmp_path / "data", write_onnx(classes=names))
        assert found["accuracy"] == 1, form


def test_an_unknown_class_is_told_with_its_likely_name(measure, photos):
    (photos / "blue").rename(photos / "Bleu")
    with pytest.raises(DataError, match=r"'blue', 'green', 'red'.*'Bleu'; did you mean 'blue'\?"):
        measure(photos)
    (photos / "Bleu").rename(photos / "zzz")
    with pytest.raises(DataError, match="rename it"):
        measure(photos)


def test_only_the_wanted_split(measure, photos, tmp_path):
    rows = ["path,label,split"]
    for i, split in enumerate(("train", "validation", "test")):
        names = {0: "0.png", 1: "1.jpg", 2: "2.gif"}
        rows += [f"{c}/{names[i]},{c},{split}" for c in ("blue", "green", "red")]
    (photos / "list.csv").write_text("\n".join(rows))
    assert measure(photos / "list.csv")["n"] == 9
    assert measure(photos / "list.csv", split="test")["n"] == 3
    with pytest.raises(DataError, match=r"'test'.*is not split"):
        measure(photos, split="test")
    (photos / "part.csv").write_text("\n".join(row for row in rows if "test" not in row))
    with pytest.raises(DataError, match="it has only train, validation"):
        measure(photos / "part.csv", split="test")


def test_the_training_data_is_called_that(measure, photos, write_onnx):
    seen = write_onnx(extra={"data": {"source_id": source_id(str(photos))}})
    assert "flatter" in measure(photos, seen)["notes"][-1]
    assert not measure(photos)["notes"]


def test_nothing_but_broken_images(measure, photos):
    for image in photos.glob("*/*"):
        image.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(DataError, match=r"none of the 9 files.*blue/0\.png"):
        measure(photos)


def test_evaluate_needs_no_framework(write_onnx, photos, run_without_frameworks):
    code = "from automl_tl.cli.errors import run\nsys.exit(run(sys.argv[1:]))\n"
    found = json.loads(run_without_frameworks(code, "evaluate", write_onnx(), photos, "--json"))
    assert found["accuracy"] == 1
    assert np.trace(found["confusion"]) == 9
