"""One built backbone: its layers, cuts and weights."""

from __future__ import annotations

import functools
import inspect
import random
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from automl_tl.errors import AutoMLError, PluginError, UsageError
from automl_tl.types import NetworkInfo
from automl_tl_keras import figures, frameworks
from automl_tl_keras import graph as graphs
from automl_tl_keras.catalog import Application

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    from automl_tl.specs import Backbone, Preprocess
    from automl_tl.types import NetworkSpec


class Network:
    """One built backbone. Make it with ``build``.

    Batch normalisation always runs in inference mode. Any other layer that behaves differently in
    training (dropout, stochastic depth) does so only when it is trainable and the call says
    ``training=True``.

    Attributes:
        spec: What was built.
        backbone: Its facts.
        model: Functional, without the classifier: float32 normalised ``(n, s, s, 3)`` to the
            output of the last layer.
        compiled: Functions that were compiled for this network, under any keys; they go with it.
    """

    def __init__(self, spec: NetworkSpec, backbone: Backbone, graph: graphs.LayerGraph) -> None:
        self.spec = spec
        self.backbone = backbone
        self.model = graph.model
        self.compiled: dict[Hashable, Callable[..., Any]] = {}
        self._graph = graph
        self._segments: dict[tuple[int, int | str], keras.Model] = {}
        self._originals: dict[str, NDArray[np.generic]] = {}

    @functools.cached_property
    def info(self) -> NetworkInfo:
        """Layers and cut points.

        Raises:
            PluginError: When the output is neither a spatial map nor a vector.
        """
        layers, cuts = figures.describe(self._graph, self.spec.image_size)
        last = cuts[-1]
        if last.index != len(layers) or len(last.shape) not in (1, 3):
            raise PluginError(
                f"{self.backbone.key}: expected an output of shape (height, width, channels) or "
                f"(features,), got {self.model.output_shape[1:]}; report it to the backbone's "
                "author."
            )
        return NetworkInfo(layers, cuts, last.shape[-1], version())

    def segment(self, start: int, stop: int) -> keras.Model:
        """Return a model of ``layers[start:stop]`` that shares this network's layers.

        The same arguments always return the same model.

        Args:
            start: A cut. At 0 the input is pixels ``(n, s, s, 3)`` in ``[0, 255]``, uint8 or
                float32, which are normalised first; elsewhere the tensor at the cut.
            stop: A cut; the result is the tensor there.

        Raises:
            PluginError: When either is not a cut, or ``stop`` is below ``start``.
        """
        crossings = self._graph.crossings
        if not start <= stop or {start, stop} - crossings.keys():
            raise PluginError(
                f"{self.backbone.key}: expected two cut points from below to above, got {start} "
                f"and {stop}; NetworkInfo.cuts lists them."
            )
        return self._extract(start, stop, crossings[stop])

    def tap(self, start: int, layer: str) -> keras.Model:
        """Return a model from a cut to the output of a layer, which need not be a cut.

        Args:
            start: A cut, as for ``segment``.
            layer: Name of a layer; where it is used more than once, its first use counts.

        Raises:
            PluginError: When there is no such layer above the cut, or it has several outputs.
        """
        found = graphs.outputs(self._graph, start, layer)
        if len(found) != 1:
            raise PluginError(
                f"{self.backbone.key}: expected a layer with one output above cut {start}, got "
                f"{layer}; choose another layer."
            )
        return self._extract(start, layer, found[0])

    def freeze(self, fine_tune_at: int) -> None:
        """Make ``layers[fine_tune_at:]`` trainable and freeze those below.

        Sets ``trainable`` of every layer, after which functions that were compiled for another
        ``fine_tune_at`` are wrong. A layer or variable used on both sides counts as below. May be
        called again at any time.

        Args:
            fine_tune_at: Any layer's index; ``len(layers)`` freezes everything.
        """
        for name, variable in (self.trainable(fine_tune_at) | self.states(fine_tune_at)).items():
            if name not in self._originals:
                self._originals[name] = np.array(keras.ops.convert_to_numpy(variable))
        for layer in self._graph.layers[fine_tune_at:]:
            layer.trainable = True
        for layer in self._graph.layers[:fine_tune_at]:
            layer.trainable = False

    def trainable(self, fine_tune_at: int) -> dict[str, keras.Variable]:
        """Return the variables that ``freeze`` leaves trainable, by name."""
        above = slice(fine_tune_at, None)
        return {
            name: variables[name]
            for variables, names in zip(
                self._graph.variables[above], self._graph.trainable[above], strict=True
            )
            for name in names
        }

    def states(self, fine_tune_at: int) -> dict[str, keras.Variable]:
        """Return what may move beside the variables that ``freeze`` leaves trainable, by name.

        Such are the vectors of spectral normalisation; the statistics of BatchNorm stay.
        """
        still = self.trainable(fine_tune_at).keys() | self._statistics
        return {
            name: variable
            for variables in self._graph.variables[fine_tune_at:]
            for name, variable in variables.items()
            if name not in still
        }

    def tensors(self) -> dict[str, keras.Variable]:
        """Return all weights of the backbone, moving statistics among them.

        Names are ``LAYER/.../VARIABLE``, the same in every process and build.
        """
        return {name: v for mine in self._graph.variables for name, v in mine.items()}

    def reset(self) -> None:
        """Put back the weights that the network was built with, bit for bit.

        Only what ``freeze`` has made trainable since, and its states, can have changed, so this
        costs nothing where nothing was.
        """
        tensors = self.tensors()
        for name, value in self._originals.items():
            tensors[name].assign(value)

    @functools.cached_property
    def _statistics(self) -> set[str]:
        """Names of the weights of BatchNorm, within other layers too."""
        found = {
            id(weight)
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            for weight in layer.weights
        }
        return {name for name, variable in self.tensors().items() if id(variable) in found}

    def _extract(self, start: int, stop: int | str, target: Any) -> keras.Model:
        if (start, stop) not in self._segments:
            entry = self._entry(start)
            name = f"layers_{start}_{stop}"
            self._segments[start, stop] = graphs.extract(self._graph, start, target, entry, name)
        return self._segments[start, stop]

    def _entry(self, start: int) -> tuple[Any, Any]:
        tensor = self._graph.crossings[start]
        if start:
            source = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name="activations")
            return source, source
        source = keras.Input(tensor.shape[1:], dtype="float32", name="pixels")
        return source, normalize(source, self.backbone.preprocess)


def build(spec: NetworkSpec, backbone: Backbone) -> Network:
    """Build a backbone.

    Layers get the names that a fresh process gives them. Random weights are drawn from
    ``spec.seed``; the caller's random numbers in Python and NumPy are not disturbed.

    Raises:
        UsageError: When the backbone does not accept the image size.
        WeightsError: When the weights cannot be loaded.
        PluginError: When the loader fails otherwise or returns no functional model.
    """
    _check_size(spec.image_size, backbone)
    keras.utils.clear_session(free_memory=False)
    python, numpy = random.getstate(), np.random.get_state()
    try:
        # All that Keras draws follows from these; its set_random_seed would import TensorFlow.
        random.seed(spec.seed)
        np.random.seed(spec.seed)
        model = _load(spec, backbone)
    except AutoMLError:
        raise
    except Exception as error:
        raise PluginError(
            f"{backbone.key}: its loader fails with {type(error).__name__}: {error}; report it "
            "to the backbone's author."
        ) from error
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
    graph = graphs.trace(model, spec.image_size, backbone.key)
    for layer in graph.model._flatten_layers(include_self=False):
        _rule_mode(layer)
    network = Network(spec, backbone, graph)
    network.freeze(len(graph.layers))
    return network


def normalize(pixels: Any, preprocess: Preprocess) -> Any:
    """Normalise pixels ``(n, s, s, 3)`` in ``[0, 255]`` with layers that every Keras knows."""
    if preprocess.channels == "bgr":
        reverse = np.eye(3, dtype=np.float32)[::-1][None, None]
        pixels = keras.layers.Conv2D(
            3,
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.Constant(reverse.tolist()),
            trainable=False,
            name="reverse_channels",
        )(pixels)
    scale = [1 / (255 * std) for std in preprocess.std]
    offset = [-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="normalize")(pixels)


def version() -> str:
    """Return the versions that the numbers depend on."""
    modules = ("keras", keras.config.backend(), "automl-tl-keras")
    return " ".join(f"{module} {frameworks.version(module)}" for module in modules)


def _load(spec: NetworkSpec, backbone: Backbone) -> Any:
    if isinstance(backbone.load, Application):
        return backbone.load(spec.weights, spec.image_size)
    return backbone.load(spec.weights)


def _rule_mode(layer: keras.layers.Layer) -> None:
    """Let a layer run in training mode only when it may; see ``Network``.

    Replaces ``call`` of this one object, so that the class, which saved files name, stays.
    """
    if "training" not in inspect.signature(layer.call).parameters:
        return
    call = layer.call
    statistics = isinstance(layer, keras.layers.BatchNormalization)

    @functools.wraps(call)
    def ruled(*args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        active = bool(training) and layer.trainable and not statistics
        return call(*args, training=active, **kwargs)

    layer.call = ruled


def _check_size(size: int, backbone: Backbone) -> None:
    if backbone.fixed_size and size != backbone.input_size:
        raise UsageError(
            f"{backbone.key}: expected images of {backbone.input_size} pixels a side, the only "
            f"size that this network takes, got {size}; set image_size={backbone.input_size}."
        )
    if size < backbone.min_size:
        raise UsageError(
            f"{backbone.key}: expected images of at least {backbone.min_size} pixels a side, got "
            f"{size}; set image_size={backbone.input_size}."
        )
