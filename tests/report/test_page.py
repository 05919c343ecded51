from __future__ import annotations

import json
import re
import sys
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import optuna
import pytest

from automl_tl.api import Study
from automl_tl.errors import StudyError, UsageError
from automl_tl.report import figures, model_plots, optuna_plots
from automl_tl.report.page import inline_json
from tests.report.conftest import FILE, SCRIPT, Made, fill, make

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 8_000_000


class Reader(HTMLParser):
    """Collects the tags of a page, its text, and what its scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._raw = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] += data
        elif not self._raw:
            self.text += data


def _read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_the_page_is_one_file_that_asks_for_nothing(page: Path) -> None:
    reader = _read(page)
    assert page.stat().st_size < LIMIT
    for tag, attributes in reader.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for tag, a in reader.tags if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_names_from_the_data_are_text_everywhere(page: Path) -> None:
    reader = _read(page)
    assert [attributes.get("type") for tag, attributes in reader.tags if tag == "script"] == [
        "application/json",
        None,
        None,
    ]
    assert SCRIPT in reader.text
    assert FILE in reader.text
    assert "tulips & <b>roses</b>" in reader.text
    drawn = json.loads(reader.scripts[0])
    labels = drawn["confusion-validation"]["layout"]["xaxis"]["ticktext"]
    assert labels[1] == "&lt;script&gt;alert(1)&lt;/scrip…"
    assert "<script" not in json.dumps(drawn)


def test_a_report_says_what_people_ask(page: Path, made: Made) -> None:
    text = " ".join(_read(page).text.split())
    best = made.facts()["answer"]
    assert f"Is {100 * best['test']['accuracy']:.1f} % real?" in text
    assert best["optimism"]["sentence"] in text
    assert "The test images were looked at once" in text
    assert "Which images does it get wrong, and why?" in text
    assert "automl-tl export made -o model.onnx" in text
    for heading in ("Learning curves", "Labels that look wrong", "Run it again", "Copies"):
        assert heading in text
    drawn = json.loads(_read(page).scripts[0])
    assert {"history", "progress", "cost", "timeline", "parallel", "importances"} <= set(drawn)
    assert {"curves", "losses", "backbones", "slices-0", "reliability-test"} <= set(drawn)
    for name, figure in drawn.items():
        assert any(trace.get("x") or trace.get("z") for trace in figure["data"]), name


def test_a_study_without_figures_has_a_page_too(empty: Made) -> None:
    text = " ".join(_read(empty.report()).text.split())
    assert "No trial is complete yet" in text
    assert "Not drawn: it takes 4 complete trials, and there are 0." in text
    empty.add(empty.study)
    assert "0 trials run, 1 were pruned" in " ".join(_read(empty.report()).text.split())


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1"])
def test_other_metrics_and_a_single_trial(tmp_path: Path, metric: str) -> None:
    made = make(tmp_path, metric=metric, picture=False)
    made.add(made.study, made.logits("validation", 0.8))
    text = " ".join(_read(made.report()).text.split())
    assert "Not looked for: it takes three complete trials." in text
    assert "Pictures cannot be shown" in text
    assert "Nobody can say yet" in text


def test_thousands_of_trials_and_hundreds_of_classes_fit(tmp_path: Path) -> None:
    names = tuple(f"class number {i} " + "x" * 40 for i in range(120))
    made = make(tmp_path, classes=names, images=10)
    fill(made, 60)
    template = made.study.get_trials(deepcopy=False)
    made.study.add_trials(template * 25)
    started = time.monotonic()
    path = made.report()
    assert time.monotonic() - started < 60
    assert path.stat().st_size < LIMIT
    text = " ".join(_read(path).text.split())
    assert "The table lists 50 of them" in text
    assert "the 30 with the most mistakes are drawn" in text
    assert "at most 400 are drawn in a plot" in text
    assert "The last 500 trials are drawn." in text


def test_without_plotly_one_sentence(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UsageError, match=r"needs plotly.*automl-tl\[report\]"):
        made.report()


def test_the_interface_and_a_place_that_cannot_be_written(made: Made, tmp_path: Path) -> None:
    study = Study.open(made.directory.path)
    assert study.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]
    with pytest.raises(StudyError, match="cannot be written"):
        study.report(tmp_path / "nowhere" / "page.html")


def test_labels_are_what_plotly_shows_literally() -> None:
    assert figures.plain("<b>&amp;\n") == "&lt;b&gt;&amp;amp; "
    assert figures.plain("x" * 30, 10) == "xxxxxxxxx…"


def test_ticks_of_one_axis_are_not_written_over_each_other() -> None:
    ticks = [("119", 0.1), ("1e+03", 0.99), ("1.02e+03", 1.0), ("0", 0.0), ("0.1", 0.3)]
    made = [{"x": x, "y": y, "text": text} for x in (0, 1) for text, y in ticks]
    kept = optuna_plots._apart([*made, {"x": 2, "y": 0.0, "text": "adam"}])
    assert [tick["text"] for tick in kept] == [*["0", "119", "0.1", "1020"] * 2, "adam"]


def test_inline_json_never_ends_its_script() -> None:
    text = inline_json({"a": "</script><!-- \u2028 &"})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"a": "</script><!-- \u2028 &"}


def test_curves_mark_where_fine_tuning_starts() -> None:
    history = [
        {"epoch": e, "phase": "warm-up" if e < 3 else "fine-tuning", "value": 0.1 * e}
        for e in range(6)
    ]
    drawn = model_plots.curves([{"number": 4, "history": history}], "value", "accuracy", "accuracy")
    warm, tuned = drawn["data"]
    assert (warm["x"], tuned["x"]) == ([1, 2, 3], [3, 4, 5, 6])
    assert (warm["line"]["dash"], tuned["line"]["dash"]) == ("dot", "solid")
    assert drawn["layout"]["shapes"][0]["x0"] == 3.5


def test_a_parameter_that_only_trials_outside_the_sample_have_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optuna_plots, "POINTS", 12)
    monkeypatch.setattr(optuna_plots, "LINES", 6)
    study = optuna.create_study(direction="maximize")
    for number in range(60):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        if number in {31, 32}:
            trial.suggest_int("rare", 1, 9)
        study.tell(trial, x if number not in {31, 32} else -1.0)
    drawn = optuna_plots.plots(study, "accuracy")
    assert isinstance(drawn["importances"], dict) and isinstance(drawn["parallel"], dict)
    assert len(drawn["slices"]) == 1
    (bars,) = drawn["importances"]["data"]
    assert bars["y"][-1] == "x" and bars["x"][-1] == max(bars["x"])
