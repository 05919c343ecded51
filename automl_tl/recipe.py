"""The facts that a trial's model carries along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.data.sources import readable
from automl_tl.installed import package_version
from automl_tl.modelfile import ModelFacts, source_id
from automl_tl.plugins import get_plugins
from automl_tl.types import Head
from automl_tl.weights import is_published

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automl_tl.specs import Backbone
    from automl_tl.study_config import Config
    from automl_tl.study_data import StudyData


def model_facts(
    config: Config,
    data: StudyData,
    number: int,
    facts: Mapping[str, Any],
    test: Mapping[str, Any] | None = None,
    trials: int | None = 1,
) -> ModelFacts:
    """Return what travels inside a trial's model file.

    Args:
        config: Of the study.
        data: Of the study.
        number: Of the trial.
        facts: What the worker recorded of it: ``spec``, ``fine_tune_at``, ``layers``,
            ``head_scale``, ``validation``.
        test: Figures on the test split, when they were computed.
        trials: How many trials it is the best of; None when it is not the best.
    """
    spec = facts["spec"]
    plugins = get_plugins()
    backbone = plugins.backbone(spec["backbone"])
    packages = plugins.backend(backbone.backend).packages
    head = Head(
        classes=len(data.classes),
        units=tuple(spec["head_units"]),
        dropout=spec["dropout"],
        pooling=spec["pooling"],
        scale=facts.get("head_scale", 1.0),
    )
    return ModelFacts(
        backbone=backbone.key,
        image_size=spec["image_size"] or backbone.input_size,
        resize=spec["resize"],
        classes=data.classes,
        head=head,
        fine_tune_at=facts["fine_tune_at"],
        study=config.name,
        trial=number,
        params={name: value for name, value in spec.items() if value is not None},
        validation=facts["validation"],
        test=test or {},
        versions={name: package_version(name) for name in ("automl-tl", *packages)},
        licences={
            "architecture": backbone.licence,
            "weights": _weights_licence(backbone, config.weights[backbone.key]),
        },
        extra={
            "data": {
                "source": readable(Path(config.data).name),
                "source_id": source_id(config.data),
                "counts": data.counts(),
            },
            "layers": facts["layers"],
            "metric": config.metric,
            "trials": trials,
        },
    )


def _weights_licence(backbone: Backbone, file: str) -> str:
    if file == "none":
        return "none"
    published = backbone.pretrained
    return published.licence if published and is_published(backbone, file) else "unknown"
