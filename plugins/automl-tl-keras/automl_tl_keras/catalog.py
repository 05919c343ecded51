"""The models of ``keras.applications`` as backbones, from facts beside this module.

``catalog.json`` is written by ``tools/make_catalog.py``; reading it imports no framework.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import PluginError
from automl_tl.specs import Backbone, Preprocess, PretrainedWeights
from automl_tl_keras.weights import load_into, weights_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

BACKEND = "keras"
CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE = "not stated by Keras; may follow from ImageNet's terms"

# One good network a decade of cost, each at or near the best ImageNet accuracy of its size;
# MobileNetV2 because the tutorials fine-tune it, ResNet50 because everybody compares with it.
RECOMMENDED = (
    "MobileNetV2",
    "EfficientNetV2B0",
    "ResNet50",
    "EfficientNetV2B3",
    "ConvNeXtTiny",
    "EfficientNetV2S",
)

# `preprocess_input` in its four kinds; `none` is for networks that scale pixels themselves.
_CAFFE_MEAN = (103.939 / 255, 116.779 / 255, 123.68 / 255)
_PREPROCESS = {
    "none": Preprocess(mean=(0.0,) * 3, std=(1 / 255,) * 3),
    "tf": Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3),
    "torch": Preprocess(),
    "caffe": Preprocess(mean=_CAFFE_MEAN, std=(1 / 255,) * 3, channels="bgr"),
}
_IMAGENET_STD = (0.229, 0.224, 0.225)


def applications() -> list[Backbone]:
    """Return the models of ``keras.applications``, in alphabetical order."""
    text = Path(__file__).with_name("catalog.json").read_text(encoding="utf-8")
    return [_backbone(row) for row in json.loads(text)]


@dataclass(frozen=True, slots=True)
class Application:
    """Builds one of the models; the ``load`` of its backbone.

    Attributes:
        key: Of the backbone, for messages.
        model: Name of the function in ``keras.applications``.
        options: What it must be told, such as ``alpha``.
        input_size: Side of the input that the weights were trained for.
    """

    key: str
    model: str
    options: Mapping[str, Any]
    input_size: int

    def __call__(self, path: Path | None, image_size: int | None = None) -> keras.Model:
        """Build the network without its classifier.

        Args:
            path: Weights file, None for random weights from Keras' global seed.
            image_size: Side of the images, None for ``input_size``. Some architectures pad by the
                parity of the sides within, so that a graph for any size would be another network.

        Raises:
            PluginError: When the installed Keras does not know the model.
            WeightsError: When the file cannot be loaded.
        """
        return self._build(path, image_size or self.input_size, include_top=False)

    def classifier(self, path: Path | None) -> keras.Model:
        """Build the network with its original classifier of 1000 classes, which gives logits."""
        return self._build(path, self.input_size, include_top=True)

    def _build(self, path: Path | None, side: int, include_top: bool) -> keras.Model:
        import keras

        build = getattr(keras.applications, self.model, None)
        if build is None:
            raise PluginError(
                f"{self.key}: Keras {keras.__version__} does not know this model; install another "
                "version, or choose another backbone."
            )
        network: keras.Model = build(
            include_top=include_top,
            weights=None,
            input_shape=(side, side, 3),
            **({"classifier_activation": None} if include_top else {}),
            **self.options,
        )
        if self.model.startswith("EfficientNetB"):
            network = _rescaled(network)
        if path is not None:
            load_into(network, path, self.key)
        return network


def _rescaled(network: keras.Model) -> keras.Model:
    """Divide EfficientNet's normalised images by the root of ImageNet's standard deviation.

    Keras builds that layer only for its own ``weights="imagenet"``, whose stored variance is the
    standard deviation (tensorflow issue 49930); without it the published weights see other images.
    """
    import keras

    def call(layer: keras.Layer, *arguments: Any, **options: Any) -> Any:
        out = layer(*arguments, **options)
        if isinstance(layer, keras.layers.Normalization):
            scale = [1 / std**0.5 for std in _IMAGENET_STD]
            out = keras.layers.Rescaling(scale)(out)
        return out

    images = keras.Input(network.input_shape[1:], name=network.layers[0].name)
    return keras.models.clone_model(
        network, input_tensors=images, clone_function=lambda layer: layer, call_function=call
    )


def _backbone(row: Mapping[str, Any]) -> Backbone:
    name = row["name"]
    loader = Application(f"{BACKEND}/{name}", row["model"], row["options"], row["input_size"])
    return Backbone(
        name=name,
        backend=BACKEND,
        load=loader,
        input_size=row["input_size"],
        parameters=row["parameters"],
        min_size=row["min_size"],
        preprocess=_PREPROCESS[row["preprocess"]],
        pretrained=_published(row["features"]),
        classifier=_published(row["classifier"]),
        load_classifier=loader.classifier,
        licence=CODE_LICENCE,
        recommended=name in RECOMMENDED,
        facts={
            "imagenet_accuracy": row["imagenet_accuracy"],
            "gflops": row["gflops"],
            "file": row["features"]["file"],
        },
    )


def _published(file: Mapping[str, Any]) -> PretrainedWeights:
    # Keras publishes SHA-256 (64 digits) or MD5 (32), or nothing for the oldest files.
    checksum = file["hash"] or ""
    return PretrainedWeights(
        name="imagenet",
        path=functools.partial(weights_path, file["file"]),
        url=file["url"],
        licence=WEIGHTS_LICENCE,
        sha256=checksum if len(checksum) == 64 else None,
        md5=checksum if len(checksum) == 32 else None,
    )
