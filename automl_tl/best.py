"""The best trial of a study, as the Python interface hands it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.api import Study
    from automl_tl.export import ExportReport


class Best:
    """The best trial of a study.

    Attributes:
        number: Of the trial.
        params: What it trained.
        metrics: Its figures on the validation split.
        test: Its figures on the test split; None when they were not computed.
        optimism: How far its validation accuracy is to be trusted.
    """

    def __init__(self, study: Study, facts: Mapping[str, Any]) -> None:
        self._study = study
        self.number: int = facts["trial"]
        self.params: dict[str, Any] = dict(facts["params"])
        self.metrics: dict[str, Any] = dict(facts["validation"])
        self.test: dict[str, Any] | None = facts["test"]
        self.optimism: dict[str, Any] = dict(facts["optimism"])

    def export(
        self, path: str | Path, format: str | None = None, calibrate: bool = False
    ) -> ExportReport:
        """Export the model; see ``Study.export``."""
        return self._study.export(path, format, self.number, calibrate)
