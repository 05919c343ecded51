"""The backbone that ships, in every framework: its weights and what is true of it anywhere.

A residual network for images of about 32 pixels, made of operations only that mean the same in
every framework: 3x3 convolutions of stride 1 with one pixel of zeros on every side, batch
normalisation with ``EPSILON``, ReLU, 2x2 max pooling of stride 2, addition, the global mean and one
matrix product. A stem and three stages, each: halve, widen, one residual block
``relu(x + f(x))`` (He et al., CVPR 2016).

``tools/pretrain_tiny.py`` of the PyTorch plugin wrote the weights beside this module, from images
that its ``tools/synthetic.py`` draws: safetensors with PyTorch's names and layouts, convolutions
and the classifier as float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.specs import Backbone, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "tiny"
INPUT_SIZE = 32
MIN_SIZE = 8
PARAMETERS = 463_716
PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LICENCE = "Apache-2.0"
EPSILON = 1e-3
STEM = 16
STAGES = (32, 64, 112)
CLASSES = 500


def weights_path() -> Path:
    """Return where the shipped weights lie."""
    return Path(__file__).with_name("weights.safetensors")


def backbone(
    backend: str,
    load: Callable[[Path | None], Any],
    load_classifier: Callable[[Path | None], Any] | None = None,
) -> Backbone:
    """Return the description of ``BACKEND/tiny``.

    Args:
        backend: Name of the backend.
        load: Builds the network in its framework; see ``Backbone.load``.
        load_classifier: See ``Backbone.load_classifier``.
    """
    return Backbone(
        name=NAME,
        backend=backend,
        load=load,
        load_classifier=load_classifier,
        input_size=INPUT_SIZE,
        parameters=PARAMETERS,
        min_size=MIN_SIZE,
        preprocess=PREPROCESS,
        pretrained=PretrainedWeights("synthetic", path=weights_path, licence=LICENCE),
        licence=LICENCE,
        recommended=True,
        small_images=True,
        facts={"gflops": 0.017, "synthetic_accuracy": 0.872},
    )
