"""The facts of a study, as ``show --json`` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from automl_tl import guard, metrics, sharing
from automl_tl.ensemble_trials import propose
from automl_tl.facts import FACTS, RETRY_OF, facts_of
from automl_tl.needed import missing_files
from automl_tl.storage import best_trials

if TYPE_CHECKING:
    import optuna

    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def summarise(directory: StudyDirectory, data: StudyData, study: optuna.Study) -> dict[str, Any]:
    """Return everything that is known of a study, JSON-ready."""
    trials = [
        _trial(trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]
    complete = best_trials(study)
    best = _best(directory, complete[0], len(complete)) if complete else None
    warnings = [best["optimism"]["sentence"]] if best and best["optimism"]["warn"] else []
    if sentence := missing_files(directory.config):
        warnings.append(sentence)
    states = [trial["state"] for trial in trials]
    running = "running" in states
    return {
        "study": directory.name,
        "directory": str(directory.path),
        "metric": directory.config.metric,
        "direction": metrics.DIRECTIONS[directory.config.metric],
        "seed": directory.config.seed,
        "backbones": list(directory.config.backbones),
        "plugins": list(directory.config.plugins),
        "state": {name: states.count(name) for name in ("complete", "pruned", "failed", "running")},
        "interrupted": running and not _at_work(directory, study),
        "trials": trials,
        "best": best,
        "ensemble": propose(directory, data, complete),
        "classes": list(data.classes),
        "data": {**data.facts, "counts": data.counts(), "dataset_hash": data.dataset_hash},
        "reuse": _reuse(study, data),
        "warnings": warnings,
    }


def _at_work(directory: StudyDirectory, study: optuna.Study) -> bool:
    if directory.config.storage is None:
        return guard.at_work(directory.path)
    return sharing.at_work(study)  # its searches hold no lock


def _trial(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    facts = facts_of(trial)
    spec = facts.get("spec", {})
    value = facts.get("last_value") if trial.values is None else float(trial.values[0])
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "backbone": spec.get("backbone"),
        "value": value,
        "validation": facts.get("validation"),
        "params": {key: value for key, value in spec.items() if value is not None},
        "duration_s": facts.get("duration_s"),
        "epochs": facts.get("epochs", 0),
        "planned_epochs": facts.get("planned_epochs"),
        "total_parameters": facts.get("total_parameters"),
        "trainable_parameters": facts.get("trainable_parameters"),
        "trainable_variables": facts.get("trainable_variables"),
        "fine_tune_at": facts.get("fine_tune_at"),
        "layers": facts.get("layers"),
        "plan": facts.get("plan"),
        "device": facts.get("device"),
        "precision": facts.get("precision"),
        "stopped": facts.get("stopped"),
        "reason": facts.get("reason"),
        "retry_of": trial.user_attrs.get(RETRY_OF),
        "notes": facts.get("notes", []),
    }


def _best(
    directory: StudyDirectory, trial: optuna.trial.FrozenTrial, complete: int
) -> dict[str, Any]:
    facts = trial.user_attrs[FACTS]
    result = directory.result()
    test = result["test"] if result and result["trial"] == trial.number else None
    validation = facts["validation"]
    metric = directory.config.metric
    model = directory.model(trial.number)
    return {
        "trial": trial.number,
        "params": {key: value for key, value in facts["spec"].items() if value is not None},
        "value": float(trial.values[0]),
        "validation": validation,
        "test": test,
        "test_evaluations": result["evaluations"] if result else 0,
        "optimism": metrics.optimism(
            validation[metric],
            int(validation["n"]),
            complete,
            test[metric] if test else None,
            int(test["n"]) if test else 0,
            metric,
        ),
        "model": str(model) if model.is_file() else None,
    }


def _reuse(study: optuna.Study, data: StudyData) -> dict[str, Any]:
    """Count what was computed of frozen layers, and what was found computed."""
    totals: dict[str, Any] = {
        "decoded": data.facts.get("decoded", 0),
        "prefix_passes": 0,
        "prefix_images": 0,
        "prefix_seconds": 0.0,
        "reused_arrays": 0,
        "reused_images": 0,
        "seconds_saved": 0.0,
    }
    for trial in study.get_trials(deepcopy=False):
        reuse = facts_of(trial).get("reuse")
        if reuse:
            totals["prefix_passes"] += len(reuse["passes"])
            totals["prefix_images"] += sum(done["images"] for done in reuse["passes"])
            totals["prefix_seconds"] += sum(done["seconds"] for done in reuse["passes"])
            totals["reused_arrays"] += reuse["hits"]
            totals["reused_images"] += reuse["images"]
            totals["seconds_saved"] += reuse["seconds"]
    return {key: round(value, 2) for key, value in totals.items()}
