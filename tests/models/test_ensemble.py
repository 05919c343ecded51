from __future__ import annotations

import tracemalloc
from itertools import combinations_with_replacement

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from automl_tl import metrics
from automl_tl.ensemble import mean_logits, select
from automl_tl.ensemble_onnx import merge
from automl_tl.errors import ExportError, TrialError, UsageError


def some_trials(seed, trials=4, n=12, classes=3):
    draws = np.random.default_rng(seed)
    labels = draws.integers(classes, size=n)
    skill = np.eye(classes)[labels] * draws.uniform(0.2, 1.5, size=(trials, 1, 1))
    noise = draws.normal(size=(trials, n, classes))
    return list((2 * (skill + noise)).astype(np.float32)), labels


def value_of(trials, labels, metric, members):
    mean = np.mean([metrics.probabilities(trials[m]) for m in members], axis=0)
    return metrics.value(np.log(mean).astype(np.float32), labels, metric)


def log_loss_of(trials, labels, members):
    return value_of(trials, labels, "log_loss", members)


def greedy(trials, labels, metric, draws):
    """The algorithm as the paper tells it, computed anew from scratch at every step."""

    def rate(members):
        good = metrics.goodness(value_of(trials, labels, metric, members), metric)
        return round(good, 9), -round(log_loss_of(trials, labels, members), 9)

    drawn, stages = [], []
    for _ in range(draws):
        drawn.append(max(range(len(trials)), key=lambda m: (*rate([*drawn, m]), -m)))
        stages.append((rate(drawn)[0], -len(set(drawn)), -len(drawn)))
    return sorted(drawn[: -max(stages)[2]])


@pytest.mark.parametrize("metric", metrics.DIRECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_selection_is_greedy_and_never_beats_the_best_multiset(metric, seed):
    trials, labels = some_trials(seed)
    found = select(trials, labels, metric, draws=5)
    members = [m for m, count in found.draws.items() for _ in range(count)]
    assert members == greedy(trials, labels, metric, 5)
    assert found.value == pytest.approx(value_of(trials, labels, metric, members), abs=1e-6)
    every = [
        metrics.goodness(value_of(trials, labels, metric, list(some)), metric)
        for size in range(1, 6)
        for some in combinations_with_replacement(range(len(trials)), size)
    ]
    good = metrics.goodness(found.value, metric)
    alone = max(
        metrics.goodness(value_of(trials, labels, metric, [m]), metric) for m in range(len(trials))
    )
    assert alone - 1e-6 <= good <= max(every) + 1e-6


def test_trials_that_complete_each_other_reach_the_optimum():
    labels = np.array([0, 0, 1, 1])
    sure, unsure = [4.0, 0.0], [0.0, 0.5]
    a = np.array([sure, unsure, sure[::-1], unsure[::-1]], np.float32)
    b = np.array([unsure, sure, unsure[::-1], sure[::-1]], np.float32)
    found = select([a, b], labels, "accuracy")
    assert (found.draws, found.value) == ({0: 1, 1: 1}, 1.0)
    assert found.weights == {0: 0.5, 1: 0.5}


def test_a_weight_may_be_needed():
    labels = np.array([0, 1, 1])
    strong = np.log(np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]], np.float32))
    other = np.log(np.array([[0.2, 0.8], [0.7, 0.3], [0.25, 0.75]], np.float32))
    found = select([other, strong], labels, "accuracy")
    assert found.value == 1.0
    assert found.draws[1] > found.draws[0] >= 1


def test_of_equal_ensembles_the_smallest_wins():
    right = np.array([[3.0, 0.0], [0.0, 3.0]], np.float32)
    found = select([right / 2, right, right], np.array([0, 1]), "accuracy")
    assert found.draws == {1: 1}  # the smaller log loss, then the earlier
    with pytest.raises(TrialError, match="at least one"):
        select([], np.array([0, 1]), "accuracy")


def test_hopelessly_wrong_members_do_no_harm():
    far = np.array([[0.0, 5000.0], [5000.0, 0.0]], np.float32)
    near = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    for metric in metrics.DIRECTIONS:
        found = select([far, near], np.array([0, 1]), metric)
        assert found.draws == {1: 1} and np.isfinite(found.value)
    assert np.isfinite(mean_logits([far, near], [0.5, 0.5])).all()


def test_a_log_loss_is_the_same_for_one_trial_and_for_several():
    labels = np.array([1, 1, 1])
    one = np.array([[100.0, 0.0], [0.0, 5.0], [0.0, 5.0]], np.float32)
    value = metrics.value(one, labels, "log_loss")
    assert select([one], labels, "log_loss").value == pytest.approx(value, rel=1e-6)


def test_a_candidate_takes_four_bytes_an_image_and_class():
    trials, labels = some_trials(0, trials=30, n=400, classes=50)
    tracemalloc.start()
    try:
        select(trials, labels, "accuracy", draws=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    array = 4 * 400 * 50
    assert peak < (len(trials) + 10) * array


def test_the_softmax_of_the_mean_is_the_mean_of_the_softmax():
    trials, _ = some_trials(3)
    weights = [0.1, 0.2, 0.3, 0.4]
    mean = sum(w * metrics.probabilities(t) for w, t in zip(weights, trials, strict=True))
    logits = mean_logits(trials, weights)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(metrics.probabilities(logits), mean, rtol=1e-5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(256, size=(20, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def join(tmp_path):
    """Merge models and open the result; returns a session."""

    def run(models, weights, temperature=1.0, **metadata):
        files = []
        for number, model in enumerate(models):
            files.append(tmp_path / f"{number}.onnx")
            onnx.save_model(model, files[-1])
        path = tmp_path / "merged.onnx"
        sizes = {"image_size": 8, "classes": 3, "temperature": temperature}
        merge(files, weights, path, metadata, **sizes)
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    return run


def compute(model, pixels):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"pixels": pixels})[0]


@pytest.fixture
def models(weights, make_onnx):
    draws = np.random.default_rng(2)
    noise = [draws.normal(size=weights.shape).astype(np.float32) for _ in range(3)]
    return [make_onnx(weights + one, 8, batch) for one, batch in zip(noise, "nmn", strict=True)]


def test_files_become_one(join, models, pixels):
    weights = [0.2, 0.3, 0.5]
    session = join(models, weights, automl_tl="{}")
    expected = mean_logits([compute(model, pixels) for model in models], weights)
    for n in (20, 3, 1):
        [logits] = session.run(None, {"pixels": pixels[:n]})
        np.testing.assert_allclose(logits, expected[:n], atol=1e-4)
    assert [place.name for place in session.get_inputs()] == ["pixels"]
    assert [place.name for place in session.get_outputs()] == ["logits"]
    assert session.get_modelmeta().custom_metadata_map["automl_tl"] == "{}"


def test_a_temperature_divides_the_mean(join, models, pixels):
    weights = [0.2, 0.3, 0.5]
    expected = mean_logits([compute(model, pixels) for model in models], weights)
    [logits] = join(models, weights, temperature=1.6).run(None, {"pixels": pixels})
    np.testing.assert_allclose(logits * 1.6, expected, atol=2e-4)


def test_far_apart_members_do_not_underflow(join, weights, make_onnx, pixels):
    models = [make_onnx(weights * 500, 8), make_onnx(-weights * 500, 8)]
    [logits] = join(models, [0.5, 0.5]).run(None, {"pixels": pixels})
    assert np.isfinite(logits).all()
    expected = mean_logits([compute(model, pixels) for model in models], [0.5, 0.5])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-2)


def test_members_of_different_opsets(join, models, pixels):
    older = onnx.version_converter.convert_version(models[0], 15)
    session = join([older, models[1]], [0.5, 0.5])
    expected = mean_logits([compute(model, pixels) for model in models[:2]], [0.5, 0.5])
    [logits] = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_what_members_share_is_stored_once(join, weights, make_onnx, pixels, tmp_path):
    big = numpy_helper.from_array(np.ones((1, 8, 8, 3), np.float32), "frozen")
    models = []
    for noise in (0.0, 0.5):
        model = make_onnx(weights + np.float32(noise), 8)
        model.graph.initializer.append(big)
        model.graph.node[2].input[0] = "times"
        model.graph.node.insert(2, helper.make_node("Mul", ["scaled", "frozen"], ["times"]))
        models.append(model)
    session = join(models, [0.5, 0.5])
    [logits] = session.run(None, {"pixels": pixels})
    expected = mean_logits([compute(model, pixels) for model in models], [0.5, 0.5])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    merged = onnx.load_model(tmp_path / "merged.onnx")
    shapes = [tuple(tensor.dims) for tensor in merged.graph.initializer]
    assert shapes.count((1, 8, 8, 3)) == 1
    assert shapes.count((192, 3)) == 2


def test_branches_see_the_shared_tensors(join, weights, make_onnx, pixels):
    def branching():
        """Computes the logits inside an If, whose branch uses a tensor from outside."""
        model = make_onnx(weights, 8)
        inner = helper.make_node("MatMul", ["flat", "weights"], ["inside"])
        out = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
        branch = helper.make_graph([inner], "branch", [], [out])
        choice = helper.make_node("If", ["yes"], ["logits"], then_branch=branch, else_branch=branch)
        del model.graph.node[-1]
        model.graph.node.append(choice)
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        return model

    models = [branching(), branching()]
    [logits] = join(models, [0.5, 0.5]).run(None, {"pixels": pixels})
    expected = mean_logits([compute(models[0], pixels)], [1.0])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_files_that_cannot_be_joined(models, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    onnx.save_model(models[0], tmp_path / "good.onnx")
    files = [tmp_path / "good.onnx", tmp_path / "broken.onnx"]
    with pytest.raises(ExportError, match="cannot be joined") as caught:
        merge(files, [0.5, 0.5], tmp_path / "out.onnx", {}, image_size=8, classes=3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_without_the_package_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UsageError, match="pip install onnx"):
        merge([], [], tmp_path / "out.onnx", {}, image_size=8, classes=3)
