"""A plugin that is right: a backend in NumPy and a backbone of it."""

from __future__ import annotations

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone, BackendSpec, Preprocess

PARAMETERS = 2018
"""1,768 without the classifier of ten classes."""


def load(weights):
    from numpynet_network import draw
    from safetensors.numpy import load_file

    return draw() if weights is None else load_file(weights)


def load_backend():
    from numpynet_backend import NumpyBackend

    return NumpyBackend()


def backbone(name="patches", **changes):
    facts = {
        "load": load,
        "input_size": 16,
        "min_size": 8,
        "parameters": PARAMETERS,
        "preprocess": Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        "licence": "Apache-2.0",
    }
    return Backbone(name, "numpynet", **(facts | changes))


def backend(load=load_backend):
    return BackendSpec(
        "numpynet", load, {"onnx": ".onnx", "safetensors": ".safetensors"}, packages=("numpy",)
    )


@hookimpl
def automl_tl_backends():
    return [backend()]


@hookimpl
def automl_tl_backbones():
    return [backbone()]


@hookimpl
def automl_tl_search_space(backbone):
    return {"epochs": {"low": 2, "high": 5}} if backbone.backend == "numpynet" else None
