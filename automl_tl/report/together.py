"""What several trials would reach together: an ensemble for free, from stored predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl import ensemble_trials, metrics, storage
from automl_tl.facts import facts_of
from automl_tl.report.trials import recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData


def together(
    directory: StudyDirectory,
    data: StudyData,
    study: optuna.Study,
    proposed: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return what an ensemble of the study's trials would reach.

    The test split is not looked at: its figures are those that an export of the very same members
    has found and counted.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
        proposed: The ensemble that the study's summary proposes, see ``ensemble_trials.propose``.

    Returns:
        ``best``, the best trial's number and value; ``kept``, the trials whose models can be
        joined; ``members`` (``trial``, ``draws``, ``weight``, ``value``, ``recipe``), none where no
        ensemble is better; ``value``, theirs on validation; ``test``, their figures or None;
        ``reachable``, the ``value`` of the best trials' ensemble, kept or not, and how many
        ``members`` of how many ``trials`` it has, or None where it is no better than what is kept.
        None without a complete trial.
    """
    complete = storage.best_trials(study)
    if not complete:
        return None
    known = {trial.number: trial for trial in complete}
    best = complete[0]
    result = directory.result() or {}
    counted = result.get("ensemble", {})
    members = list(proposed["members"]) if proposed else []
    value = proposed["value"] if proposed else float(best.values[0])
    considered = ensemble_trials.considered(data, complete)
    found = ensemble_trials.reachable(directory, data, considered)
    metric = directory.config.metric
    more = (
        found is not None
        and len(found.draws) > 1
        and metrics.goodness(found.value, metric) > metrics.goodness(value, metric) + 1e-9
    )
    return {
        "best": {"trial": best.number, "value": float(best.values[0])},
        "kept": [one.number for one in ensemble_trials.kept(directory, data, complete)],
        "members": [
            {
                **member,
                "value": float(known[member["trial"]].values[0]),
                "recipe": recipe(facts_of(known[member["trial"]])),
            }
            for member in members
        ],
        "value": value,
        "test": counted["test"] if members and counted.get("members") == members else None,
        "reachable": {
            "value": found.value,
            "members": len(found.draws),
            "trials": len(considered),
        }
        if found and more
        else None,
    }
