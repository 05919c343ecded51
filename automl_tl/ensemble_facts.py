"""What the joined file of an ensemble says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automl_tl import metrics
from automl_tl.modelfile import ModelFacts
from automl_tl.types import Head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.ensemble import Ensemble
    from automl_tl.ensemble_trials import Candidate
    from automl_tl.study_data import StudyData


def ensemble_facts(
    data: StudyData,
    members: Sequence[Candidate],
    chosen: Ensemble,
    logits: NDArray[np.float32],
    test: Mapping[str, Any],
    trials: int,
) -> ModelFacts:
    """Return the facts of an ensemble's file.

    Args:
        data: The study's data.
        members: Whose models are joined, the best first.
        chosen: What they were chosen as.
        logits: Of the ensemble on the validation split.
        test: Figures on the test split, empty when they are not known.
        trials: How many trials the members were chosen from.

    Returns:
        The facts; those of the members are in ``extra["members"]``.
    """
    first = members[0].facts
    licences: dict[str, list[str]] = {}
    for one in members:
        for what, licence in one.facts.licences.items():
            licences.setdefault(what, []).append(licence)
    weights = chosen.weights
    return ModelFacts(
        backbone="ensemble",
        image_size=first.image_size,
        resize=first.resize,
        classes=first.classes,
        head=Head(len(first.classes)),
        fine_tune_at=0,
        study=first.study,
        validation=metrics.from_logits(logits, data.labels[data.rows("validation")]),
        test=test,
        versions={name: v for one in members for name, v in one.facts.versions.items()},
        licences={what: ", ".join(dict.fromkeys(all_)) for what, all_ in licences.items()},
        extra={
            **{key: first.extra[key] for key in ("data", "metric") if key in first.extra},
            "trials": trials,
            "members": [
                {
                    "trial": one.number,
                    "weight": weights[one.number],
                    "backbone": one.facts.backbone,
                    "fine_tune_at": one.facts.fine_tune_at,
                    "layers": one.facts.extra.get("layers"),
                    "params": dict(one.facts.params),
                    "validation": dict(one.facts.validation),
                }
                for one in members
            ],
        },
    )
