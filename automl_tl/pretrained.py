"""A pretrained network with its original classifier, ready to name what is in a photograph."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import imagenet
from automl_tl.data.decoding import Decoders
from automl_tl.data.squares import Squares
from automl_tl.errors import UsageError, WeightsError
from automl_tl.host import BackendHost
from automl_tl.modelfile import ModelFacts
from automl_tl.plugins import get_plugins
from automl_tl.predict import Predictor
from automl_tl.stages import silent
from automl_tl.types import Head
from automl_tl.weights import at_address, fetch, is_address

if TYPE_CHECKING:
    from automl_tl.specs import Backbone, PretrainedWeights
    from automl_tl.stages import Stage

RESIZE = "crop"
"""The largest square at the centre, as ImageNet's classifiers are measured."""


def is_key(text: str) -> bool:
    """Whether this names a backbone of an installed backend rather than a file.

    A file of that name wins.
    """
    backend, slash, _ = text.partition("/")
    return bool(slash) and not Path(text).exists() and backend in get_plugins().backends


def open_classifier(
    key: str,
    weights: str | Path | None = None,
    device: str = "auto",
    stage: Stage = silent,
) -> Predictor:
    """Open a backbone with its original classifier, which knows ImageNet's 1000 classes.

    Args:
        key: Of the backbone, as ``keras/ResNet50``.
        weights: A file that holds the classifier too, or an address that ``--weights`` takes; None
            for the published weights. They are downloaded when they are missing.
        device: As for ``open_model``.
        stage: Told how far a download is.

    Raises:
        UsageError: When there is no such backbone or device, or its classes have no names.
        WeightsError: When there are no weights with a classifier.
    """
    backbone = get_plugins().backbone(key)
    path = _path(backbone, weights, stage)
    names = imagenet.class_names()
    size = backbone.input_size
    with ExitStack() as resources:
        decoders = resources.enter_context(Decoders(Squares()))
        host = resources.enter_context(BackendHost(backbone.backend, device))
        model = host.classifier(key, path)
        width = model.logits(np.zeros((1, size, size, 3), np.uint8)).shape[-1]
        if width != len(names):
            raise _nameless(key, f"{width} classes")
        facts = ModelFacts(key, size, RESIZE, names, Head(width), fine_tune_at=0)
        return Predictor(Path(key), facts, host.name, model, decoders, resources.pop_all())


def _path(backbone: Backbone, weights: str | Path | None, stage: Stage) -> Path:
    if weights is None:
        return fetch(backbone, _published(backbone), stage=stage)
    if is_address(str(weights)):
        return fetch(backbone, at_address(str(weights), backbone.key), stage=stage)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"--weights: expected a file with the classifier of {backbone.key}, got "
            f"{str(weights)!r}, which does not exist; leave it out for the published weights."
        )
    return path.absolute()


def _published(backbone: Backbone) -> PretrainedWeights:
    """Return the published weights with a classifier whose classes have names."""
    published = backbone.classifier or backbone.pretrained
    if published is None:
        raise WeightsError(
            f"{backbone.key} has no published weights: give a file that holds its classifier with "
            "--weights PATH."
        )
    if not published.name.startswith("imagenet"):
        raise _nameless(backbone.key, f"{published.name} classes")
    return published


def _nameless(key: str, what: str) -> UsageError:
    return UsageError(
        f"{key}: expected a classifier of the {len(imagenet.class_names())} classes of ImageNet, "
        f"but it knows {what}, which have no names; train it on yours with `automl-tl search`."
    )
