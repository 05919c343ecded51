"""From a trial's parameters and its plan to what a backend trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automl_tl import layers
from automl_tl.types import PhaseSpec, TrainJob, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_tl.cache.activations import Activations
    from automl_tl.planner import Plan
    from automl_tl.space import TrialSpec
    from automl_tl.study_data import StudyData
    from automl_tl.types import Head, NetworkInfo, NetworkSpec, Source


def fine_tune_at(spec: TrialSpec, info: NetworkInfo) -> int:
    """Return the index of the first layer that trains."""
    if spec.fine_tune_at is not None:
        return layers.at_layer(info, spec.fine_tune_at, spec.backbone)
    return layers.at_depth(info, spec.depth or 0.0)


def make_views(spec: TrialSpec, seed: int) -> list[View | None]:
    """Return the views that fine-tuning goes through, one an epoch; None is the image itself."""
    if not spec.augmentation:
        return [None]
    kinds = (spec.flip, spec.rotation, spec.crop, spec.colour)
    return [View(spec.augmentation, seed, index, *kinds) for index in range(spec.epochs)]


def make_job(
    spec: TrialSpec,
    data: StudyData,
    network: NetworkSpec,
    info: NetworkInfo,
    head: Head,
    planned: Plan,
    activations: Activations,
    seed: int,
) -> TrainJob:
    """Return what is trained; its sources are promises of ``activations``.

    Args:
        spec: The trial.
        data: The study's data.
        network: The trial's network.
        info: Its layers and cuts.
        head: What stands on top.
        planned: Where it trains from.
        activations: Of the network.
        seed: Of the head's weights, dropout, shuffling and augmentation.
    """
    train, validation = data.rows("train"), data.rows("validation")
    frozen = planned.tune is None
    tune_train: tuple[Source, ...] = ()
    tune_validation = None
    if planned.tune:
        tune_train = tuple(
            activations.source(train, planned.tune, view) for view in make_views(spec, seed)
        )
        tune_validation = activations.source(validation, planned.tune)
    return TrainJob(
        network=network,
        info=info,
        head=head,
        fine_tune_at=fine_tune_at(spec, info),
        warmup=PhaseSpec(spec.warmup_epochs + (spec.epochs if frozen else 0), spec.learning_rate),
        fine_tuning=PhaseSpec(
            0 if frozen else spec.epochs, spec.learning_rate * spec.fine_tune_factor
        ),
        optimizer=spec.optimizer,
        fine_tune_optimizer=(
            spec.optimizer if spec.fine_tune_optimizer == "same" else spec.fine_tune_optimizer
        ),
        schedule=spec.schedule,
        weight_decay=spec.weight_decay,
        batch_size=spec.batch_size,
        label_smoothing=spec.label_smoothing,
        class_weights=_class_weights(spec, data),
        seed=seed,
        train_labels=data.labels[train],
        head_train=activations.source(train, planned.head),
        head_validation=activations.source(validation, planned.head),
        tune_train=tune_train,
        tune_validation=tune_validation,
    )


def _class_weights(spec: TrialSpec, data: StudyData) -> NDArray[np.float32] | None:
    if spec.class_weights == "none":
        return None
    counts = np.bincount(data.labels[data.rows("train")], minlength=len(data.classes))
    weights: NDArray[np.float64] = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)
