"""The model card that lies beside an exported model: Markdown, filled in from the model's facts."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from automl_tl import metrics
from automl_tl.data.decode import PAD_COLOUR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.export import ExportReport
    from automl_tl.modelfile import ModelFacts

MARK = "<!-- automl-tl model card -->"
"""First line of every card, which tells ours from other people's files."""

_JOINERS = "\u200c\u200d"
_SPECIAL = re.compile(r"[\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_])")
_RUNTIMES = {
    "keras": "Keras",
    "litert": "LiteRT (ai-edge-litert)",
    "onnx": "onnxruntime",
    "savedmodel": "TensorFlow",
    "torch": "PyTorch",
}
"""What runs each format without automl-tl."""
_FIGURES = {
    "accuracy": ("Accuracy", "{:.1f} %", 100),
    "balanced_accuracy": ("Balanced accuracy", "{:.1f} %", 100),
    "macro_f1": ("Macro-F1", "{:.3f}", 1),
    "log_loss": ("Log loss", "{:.3f}", 1),
}


def render(facts: ModelFacts, report: ExportReport) -> str:
    """Return the model card of an exported model.

    Of ``facts.extra`` it uses, where they are there, ``data`` (``source`` and ``counts``, images a
    class and split), ``layers``, the number of the backbone's layers, ``metric``, what the trials
    were compared by, ``trials``, how many the model is the best of, ``by_class``, figures of each
    class on a split (see ``deliver.with_classes``), and ``members`` of an ensemble.

    Args:
        facts: Of the model.
        report: What the export's comparison found.
    """
    import jinja2

    templates = importlib.resources.files("automl_tl") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"md": escape, "literal": _literal, "js": _js}
    data = facts.extra.get("data") or {}
    if not {"source", "counts"} <= set(data) or not set(facts.classes) <= set(data["counts"]):
        data = {}
    images: Counter[str] = Counter()
    for row in data.get("counts", {}).values():
        images.update(row)
    return environment.get_template("model_card.md.j2").render(
        mark=MARK,
        facts=facts,
        report=report,
        name=report.path.name,
        data=data,
        images=images,
        figures=_figures(facts),
        classes=_classes(facts),
        calibration=_calibration(facts),
        members=_members(facts),
        tuned=_tuned(facts.fine_tune_at, facts.extra.get("layers")),
        warning=_warning(facts),
        pad_colour=PAD_COLOUR,
        runtimes=_RUNTIMES,
    )


def is_card(path: Path) -> bool:
    """Whether a file is a model card that ``render`` made."""
    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def escape(value: Any) -> str:
    """Return a value as one line of Markdown text that shows it literally."""
    visible = (
        c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd"
        for c in str(value)
    )
    text = " ".join("".join(visible).split())
    return _SPECIAL.sub(lambda found: "\\" + found.group(), text)


def _literal(value: str) -> str:
    """Return a Python string literal that no Markdown fence is ended by."""
    return ascii(value).replace("`", "\\x60")


def _js(value: str) -> str:
    """Return a JavaScript string literal that ends neither a Markdown fence nor a script."""
    return json.dumps(value).replace("`", "\\u0060").replace("<", "\\u003c")


def _members(facts: ModelFacts) -> list[dict[str, Any]]:
    """Describe the members of an ensemble; no other model has any."""
    return [
        {
            **member,
            "tuned": _tuned(member["fine_tune_at"], member["layers"]),
            "params": ", ".join(
                f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
                for name, value in sorted(member["params"].items())
                if name != "backbone"
            ),
        }
        for member in facts.extra.get("members", [])
    ]


def _classes(facts: ModelFacts) -> dict[str, Any] | None:
    """Return the split and the rows of class, precision, recall with interval, F1 and images."""
    known = facts.extra.get("by_class")
    if known is None:
        return None
    rows = []
    for name, row in zip(facts.classes, known["rows"], strict=True):
        recall = _share(row["recall"])
        if row["recall_interval"]:
            low, high = row["recall_interval"]
            recall += f" ({100 * low:.1f} to {100 * high:.1f} %)"
        f1 = "-" if row["f1"] is None else f"{row['f1']:.3f}"
        rows.append((escape(name), _share(row["precision"]), recall, f1, row["support"]))
    return {"split": known["split"], "rows": rows}


def _calibration(facts: ModelFacts) -> dict[str, Any] | None:
    """Return the temperature, and of each split error and log loss before and after."""
    known = facts.extra.get("calibration")
    if known is None:
        return None
    rows = []
    for split, row in known["splits"].items():
        name = split.capitalize() + (" (fitted here)" if split == known["fitted_on"] else "")
        errors = [_share(row["ece"][when]) for when in ("before", "after")]
        losses = [f"{row['log_loss'][when]:.3f}" for when in ("before", "after")]
        rows.append((escape(name), *errors, *losses, row["n"]))
    return {**known, "rows": rows}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _tuned(at: int, layers: int | None) -> str:
    """Which layers of the backbone were fine-tuned."""
    if at == 0:
        return "all (fine_tune_at = 0)"
    if not isinstance(layers, int):
        return f"from layer {at} on (fine_tune_at = {at})"
    if at >= layers:
        return f"none, all layers are frozen (fine_tune_at = {at} = number of layers)"
    return f"from layer {at} of {layers} on (fine_tune_at = {at})"


def _figures(facts: ModelFacts) -> list[tuple[str, str, str]]:
    """Rows of name, validation figure and test figure."""
    rows = []
    for key, (name, form, factor) in _FIGURES.items():
        cells = [
            form.format(factor * split[key]) if key in split else "not computed"
            for split in (facts.validation, facts.test)
        ]
        if key == "accuracy" and "interval" in facts.test:
            low, high = facts.test["interval"]
            cells[1] += f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        rows.append((name, cells[0], cells[1]))
    counts = [str(split.get("n", "unknown")) for split in (facts.validation, facts.test)]
    return [*rows, ("Images", counts[0], counts[1] if facts.test else "none")]


def _warning(facts: ModelFacts) -> str:
    """What to think of the validation figures, in a sentence."""
    validation, test = facts.validation, facts.test
    trials = facts.extra.get("trials")
    if "members" in facts.extra:
        return _of_ensemble(test, trials)
    metric = facts.extra.get("metric", "accuracy")
    if isinstance(trials, int) and metric in validation and validation.get("n"):
        known: Mapping[str, Any] = test if metric in test else {}
        return str(
            metrics.optimism(
                validation[metric],
                validation["n"],
                trials,
                known.get(metric),
                known.get("n", 0),
                metric,
            )["sentence"]
        )
    return "The model was chosen by its validation figures, so they flatter it."


def _of_ensemble(test: Mapping[str, Any], trials: int | None) -> str:
    chosen = (
        "The members and their weights were chosen on the validation images"
        + (f", after {trials} trials" if trials else "")
        + ", so the validation figures flatter the ensemble"
    )
    if not test:
        return f"{chosen}; only images that the search never saw would tell."
    return f"{chosen}; the {test['n']} test images were not used for that."
