"""What optuna-dashboard shows of our trials: notes in Markdown, and flat attributes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from automl_tl.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "**automl-tl**"
"""What our notes begin with; a note that does not was written by a person and stays."""
_KEPT = (
    "fine_tune_at",
    "layers",
    "trainable_parameters",
    "total_parameters",
    "epochs",
    "duration_s",
    "device",
    "stopped",
    "reason",
)


def trial_note(trial: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return what a trial's note says, in Markdown.

    Args:
        trial: One of the summary's trials.
        facts: The summary, see ``automl_tl.summary``.
    """
    rows = {
        "network": trial["backbone"],
        "framework": (trial["backbone"] or "").partition("/")[0],
        "layers trained": _layers(trial),
        "parameters trained": _parameters(trial),
        "validation": _figures(trial["validation"]),
        "test": _test(facts["best"], trial["number"]),
        "epochs": f"{trial['epochs']} of {trial['planned_epochs']}" if trial["epochs"] else "",
        "duration": "" if trial["duration_s"] is None else format_duration(trial["duration_s"]),
        "device": trial["device"],
        "ended early": trial["stopped"],
        "failed": trial["reason"],
    }
    lines = [f"- {name}: {_escaped(str(said))}" for name, said in rows.items() if said]
    lines += [f"- {_escaped(note)}" for note in trial["notes"]]
    return "\n".join([f"{MARK} trial {trial['number']}, {trial['state']}", "", *lines])


def study_note(facts: Mapping[str, Any], reported: bool) -> str:
    """Return what the study's note says, in Markdown.

    Args:
        facts: The summary, see ``automl_tl.summary``.
        reported: Whether there is a report to link to.
    """
    best = facts["best"]
    lines = [f"{MARK} {_escaped(facts['study'])}, best by {facts['metric']}", ""]
    if best:
        number = best["trial"]
        lines += [
            f"- best: trial {number}, {_escaped(best['params']['backbone'])}",
            f"- validation: {_figures(best['validation'])}",
            f"- test: {_test(best, number) or 'not known yet'}",
            f"- {_escaped(best['optimism']['sentence'])}",
        ]
    else:
        lines.append("- no trial has finished yet")
    if reported:
        lines.append("- [the report](/report)")
    else:
        lines.append("- `automl-tl report` writes a report, which is linked here then")
    return "\n".join(lines)


def attributes(facts: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return the recorded facts of a trial that are worth a column, flat.

    Args:
        facts: As the worker records them; empty for a trial that has just begun.
    """
    backbone = facts.get("spec", {}).get("backbone", "")
    found = {"backbone": backbone, "framework": backbone.partition("/")[0]}
    found |= {name: facts.get(name) for name in _KEPT}
    found |= {f"validation_{name}": value for name, value in facts.get("validation", {}).items()}
    return {name: v for name, v in found.items() if isinstance(v, str | int | float) and v != ""}


def _layers(trial: Mapping[str, Any]) -> str:
    at, count = trial["fine_tune_at"], trial["layers"]
    if at is None:
        return ""
    if at == count:
        return f"only the head; all {count} of the network are frozen"
    return f"{count - at} of {count}, from layer {at}, and the head"


def _parameters(trial: Mapping[str, Any]) -> str:
    if trial["trainable_parameters"] is None:
        return ""
    return f"{trial['trainable_parameters']:,} of {trial['total_parameters']:,}"


def _figures(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    shares = [
        f"{name.replace('_', ' ')} {100 * figures[name]:.1f} %"
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    return f"{', '.join(shares)}, log loss {figures['log_loss']:.3f}, on {figures['n']} images"


def _test(best: Mapping[str, Any] | None, number: int) -> str:
    if not best or best["trial"] != number or not best["test"]:
        return ""
    low, high = (100 * share for share in best["test"]["interval"])
    return f"{_figures(best['test'])}; accuracy's 95 % interval {low:.1f} to {high:.1f} %"


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|!$~&])", r"\\\1", " ".join(text.split()))
