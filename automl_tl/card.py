"""The model card that lies beside an exported model: Markdown, filled in from the model's facts."""

from __future__ import annotations

import importlib.resources
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
_FIGURES = {
    "accuracy": ("Accuracy", "{:.1f} %", 100),
    "balanced_accuracy": ("Balanced accuracy", "{:.1f} %", 100),
    "macro_f1": ("Macro-F1", "{:.3f}", 1),
    "log_loss": ("Log loss", "{:.3f}", 1),
}


def render(facts: ModelFacts, report: ExportReport) -> str:
    """Return the model card of an exported model.

    Of ``facts.extra`` it uses, where they are there, ``data`` (``source`` and ``counts``, images a
    class and split) and ``trials``, the number of trials that the model was chosen from.

    Args:
        facts: Of the model.
        report: What the export's comparison found.
    """
    import jinja2

    templates = importlib.resources.files("automl_tl") / "templates"
    source = (templates / "model_card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"md": escape, "literal": _literal}
    data = facts.extra.get("data") or {}
    if not {"source", "counts"} <= set(data) or not set(facts.classes) <= set(data["counts"]):
        data = {}
    images: Counter[str] = Counter()
    for row in data.get("counts", {}).values():
        images.update(row)
    return environment.from_string(source).render(
        mark=MARK,
        facts=facts,
        report=report,
        name=report.path.name,
        data=data,
        images=images,
        figures=_figures(facts),
        warning=_warning(facts),
        pad_colour=PAD_COLOUR,
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
    if isinstance(trials, int) and "accuracy" in validation and validation.get("n"):
        known: Mapping[str, Any] = test if "accuracy" in test else {}
        return str(
            metrics.optimism(
                validation["accuracy"],
                validation["n"],
                trials,
                known.get("accuracy"),
                known.get("n", 0),
            )["sentence"]
        )
    return "The model was chosen by its validation figures, so they flatter it."
