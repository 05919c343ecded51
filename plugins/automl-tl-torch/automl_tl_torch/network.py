"""One built backbone on a device."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from automl_tl.errors import AutoMLError, PluginError, UsageError
from automl_tl.types import NetworkInfo
from automl_tl_torch import graph as graphs
from automl_tl_torch.device import memory_format
from automl_tl_torch.fold import fold, fold_live
from automl_tl_torch.trace import chain, trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from automl_tl.specs import Backbone, Preprocess
    from automl_tl.types import NetworkSpec


class Normalize(nn.Module):
    """Pixels ``(n, s, s, 3)`` in ``[0, 255]``, uint8 or float, to a network's ``(n, 3, s, s)``."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.reverse = preprocess.channels == "bgr"
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name), dtype=torch.float32) * 255
            self.register_buffer(name, values.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise; the result is channels last without a copy."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        if self.reverse:
            images = images.flip(1)
        return (images - self.mean) / self.std


class Network:
    """One built backbone on a device. Make it with ``build``.

    Attributes:
        spec: What was built.
        backbone: Its facts.
        module: Holds all parameters, without the classifier's.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        backbone: Backbone,
        graph: graphs.LayerGraph,
        module: nn.Module,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.backbone = backbone
        self.module = module
        self.device = device
        self._graph = graph

    @functools.cached_property
    def info(self) -> NetworkInfo:
        """Layers and cut points.

        Raises:
            PluginError: When the network does not run at this image size, or its output is
                neither a spatial map nor a vector.
        """
        key = self.backbone.key
        layers, cuts = graphs.describe(self._graph, self.spec.image_size, key)
        last = cuts[-1]
        if last.index != len(layers) or len(last.shape) not in (1, 3):
            raise PluginError(
                f"{key}: expected an output of shape (channels, height, width) or (features,), "
                f"got {last.shape}; report it to the backbone's author."
            )
        return NetworkInfo(layers, tuple(cuts), last.shape[0], version())

    def segment(self, start: int, stop: int) -> nn.Module:
        """Make a module of ``layers[start:stop]`` that shares this network's parameters.

        Do not call its ``train`` or ``eval``; ``freeze`` and ``eval`` set the modes of the shared
        layers.

        Args:
            start: A cut. At 0 the argument is pixels ``(n, s, s, 3)`` in ``[0, 255]``, uint8 or
                float32, which are normalised first; elsewhere the tensor at the cut, in torch's
                layout. It is never modified.
            stop: A cut; the result is the tensor there.

        Raises:
            PluginError: When either is not a cut.
        """
        layers = graphs.extract(self._graph, self.module, start, stop)
        return self._from_pixels(layers) if start == 0 else layers

    def frozen(self, start: int, stop: int) -> nn.Module:
        """Make a module of ``layers[start:stop]`` that only runs, faster, with copied parameters.

        The network has to be in evaluation mode; see ``eval``. Arguments as for ``segment``.
        """
        layers = fold(graphs.extract(self._graph, self.module, start, stop))
        return self._from_pixels(layers) if start == 0 else layers

    def trainable(self, start: int, stop: int) -> nn.Module:
        """Make a module of ``layers[start:stop]`` that is fast to train; otherwise as ``segment``.

        It shares this network's parameters, and computes the same.
        """
        layers = graphs.extract(self._graph, self.module, start, stop)
        if self.device.type == "cpu":  # a GPU waits for the many small operations of folding
            layers = fold_live(layers)
        return self._from_pixels(layers) if start == 0 else layers

    def tap(self, start: int, index: int) -> nn.Module:
        """Make a module of the layers from a cut up to any one, whose result is that one's.

        Args:
            start: As for ``segment``; at or below the layer.
            index: The layer; what it returns need not be a tensor.

        Raises:
            PluginError: When ``start`` is not a cut.
        """
        layers = graphs.extract_layer(self._graph, self.module, start, index)
        return self._from_pixels(layers) if start == 0 else layers

    def freeze(self, fine_tune_at: int) -> None:
        """Make ``layers[fine_tune_at:]`` trainable and freeze those below.

        A parameter belongs to the first layer that uses it. Below, every module is in evaluation
        mode; above, dropout and stochastic depth are active. Batch normalisation is in evaluation
        mode everywhere, so its statistics never move. May be called again at any time.

        Args:
            fine_tune_at: Any layer's index; ``len(layers)`` freezes everything.
        """
        graph = self._graph
        self.module.requires_grad_(False)
        for names in graph.parameters[fine_tune_at:]:
            for name in names:
                self.module.get_parameter(name).requires_grad_(True)
        self.module.eval()
        # A module used on both sides counts as below.
        for nodes, training in (
            (graph.layers[fine_tune_at:], True),
            (graph.layers[:fine_tune_at], False),
        ):
            for node in nodes:
                if node.op == "call_module":
                    self.module.get_submodule(str(node.target)).train(training)
        for module in self.module.modules():
            if isinstance(module, _NormBase):
                module.eval()

    def eval(self) -> None:
        """Put every layer into evaluation mode."""
        self.module.eval()

    def copy(self) -> Network:
        """Return a network with its own parameters, so that training leaves this one as it is."""
        twin = Network(
            self.spec, self.backbone, self._graph, copy.deepcopy(self.module), self.device
        )
        twin.__dict__["info"] = self.info  # depends on the graph alone
        return twin

    def _from_pixels(self, layers: nn.Module) -> nn.Module:
        return nn.Sequential(Normalize(self.backbone.preprocess).to(self.device), layers)


def build(spec: NetworkSpec, backbone: Backbone, device: torch.device) -> Network:
    """Build a backbone and the graph of its layers: traced, or of its stages.

    Random weights are drawn from ``spec.seed``; the caller's random numbers are not disturbed.

    Raises:
        UsageError: When the backbone does not accept the image size.
        WeightsError: When the weights cannot be loaded.
        PluginError: When the loader fails otherwise, the network cannot be traced, or its stages
            are none.
    """
    _check_size(spec.image_size, backbone)
    network = load(backbone.load, backbone.key, spec.weights, spec.seed)
    make = chain if isinstance(network, Mapping) else trace
    graph = make(network, backbone.key)
    module = graph.module.to(device)
    graphs.place(module, device)
    # `Module.to` would refuse tensors of five axes, which some transformers keep.
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format(device))
    result = Network(spec, backbone, graph, module, device)
    result.freeze(len(graph.layers))
    return result


def load(loader: Callable[[Path | None], Any], key: str, weights: Path | None, seed: int) -> Any:
    """Call a backbone's loader; what is random comes from ``seed``.

    Without gradients: a weight that a hook computes from parameters, as weight normalisation does,
    could not be copied otherwise.

    Raises:
        WeightsError: When the weights cannot be loaded.
        PluginError: When the loader fails otherwise.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        try:
            return loader(weights)
        except AutoMLError:
            raise
        except Exception as error:
            raise PluginError(
                f"{key}: its loader fails with {type(error).__name__}: {error}; report it to the "
                "backbone's author."
            ) from error


def version() -> str:
    """Return the versions that the numbers depend on."""
    packages = ("torch", "torchvision", "automl-tl-torch")
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


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
