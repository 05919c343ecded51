"""What a model file says of itself once a temperature has calibrated it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automl_tl import calibration, metrics, testsplit
from automl_tl.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts
    from automl_tl.study_data import StudyData
    from automl_tl.types import Split


def calibrated(
    facts: ModelFacts,
    data: StudyData,
    logits: Mapping[Split, NDArray[np.float32] | None],
    what: str,
) -> ModelFacts:
    """Return the facts of a model whose logits are divided by a temperature.

    The temperature is fitted on the validation split. The figures become those of the divided
    logits; the test split only has a part in them for facts that have test figures.

    Args:
        facts: Of the model as it was trained.
        data: The study's data.
        logits: Of the model as it was trained, where they are stored.
        what: What the model is called in an error: ``trial 7``.

    Returns:
        The facts, with ``extra["calibration"]``: ``temperature``, ``fitted_on`` and ``splits``,
        for each of them ``n``, ``ece`` and ``log_loss``, the latter two ``before`` and ``after``.

    Raises:
        ExportError: When there is no temperature that fits best.
    """
    known = {
        split: values
        for split, values in logits.items()
        if values is not None and (split != "test" or facts.test)
    }
    if "validation" not in known:
        raise ExportError(
            f"Expected the stored validation logits of {what}, to fit a temperature, but they are "
            "missing; leave out --calibrate."
        )
    labels = {split: data.labels[data.rows(split)] for split in known}
    found = calibration.compare(known, labels)
    temperature = found["temperature"]
    if temperature is None:
        right = int((known["validation"].argmax(axis=1) == labels["validation"]).sum())
        raise ExportError(
            "Expected validation images of which some are classified rightly and some wrongly, to "
            f"fit a temperature, but {what} gets {right} of {len(labels['validation'])} right; "
            "leave out --calibrate."
        )
    divided = {split: calibration.divided(values, temperature) for split, values in known.items()}
    # Test figures without stored logits cannot be brought up to date, and so lose what changed.
    stale = {name: value for name, value in facts.test.items() if name != "log_loss"}
    return replace(
        facts,
        validation=metrics.from_logits(divided["validation"], labels["validation"]),
        test=testsplit.figures(divided["test"], labels["test"]) if "test" in divided else stale,
        extra={
            **facts.extra,
            "calibration": {
                "temperature": temperature,
                "fitted_on": "validation",
                "splits": {split: _change(both) for split, both in found["splits"].items()},
            },
        },
    )


def _change(both: Mapping[str, Any]) -> dict[str, Any]:
    before, after = both["before"], both["after"]
    return {
        "n": before["n"],
        **{name: {"before": before[name], "after": after[name]} for name in ("ece", "log_loss")},
    }
