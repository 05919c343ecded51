"""The Keras backend: what the core asks, handed to the module that knows.

Keras reads the framework and the device that it runs on when it is imported, so nothing here
imports it before the first network or model.
"""

from __future__ import annotations

import functools
import gc
from typing import TYPE_CHECKING, Literal

from automl_tl_keras import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.protocols import Model, Progress, Trainer
    from automl_tl.specs import Backbone
    from automl_tl.types import Head, NetworkInfo, NetworkSpec, Source, TrainJob
    from automl_tl_keras.network import Network
    from automl_tl_keras.steps import Stepper


class KerasBackend:
    """Trains with Keras; implements ``automl_tl.protocols.Backend``.

    The last network is kept with all that was compiled for it. A trial that fine-tunes changes its
    weights and puts them back when it ends.

    Args:
        backbones: Finds a backbone by its key; by default among all installed plugins.

    Raises:
        UsageError: When Keras cannot train here; see ``runtime.choose_backend``.
    """

    def __init__(self, backbones: Callable[[str], Backbone] | None = None) -> None:
        runtime.choose_backend()
        self._backbones = backbones or _installed
        self._device: str | None = None
        self._network: Network | None = None
        self._exported: set[str] = set()

    def describe(self, network: NetworkSpec) -> NetworkInfo:
        """List layers and cut points; see ``Backend``."""
        return self._build(network).info

    def run(
        self,
        network: NetworkSpec,
        source: Source,
        cut: int,
        pooling: Literal["avg", "max"] | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """Compute the layers between ``source.cut`` and ``cut``; see ``Backend``."""
        device = self._started()
        from automl_tl_keras import compute

        compute.run(self._build(network), source, cut, pooling, out, progress, device)

    def extract(
        self,
        network: NetworkSpec,
        source: Source,
        layer: str,
        pooling: Literal["avg", "max"] | None,
        out: Path,
        progress: Progress,
    ) -> None:
        """Compute the output of any layer; see ``Backend``."""
        device = self._started()
        from automl_tl_keras.extract import extract

        extract(self._build(network), source, layer, pooling, out, progress, device)

    def classifier(self, backbone: str, weights: Path) -> Model:
        """Build a backbone with its original classifier; see ``Backend``."""
        device = self._started()
        from automl_tl_keras.pretrained import open_classifier

        return open_classifier(self._backbones(backbone), weights, device)

    def trainer(self, job: TrainJob) -> Trainer:
        """Prepare a trial; the network is built when the trial needs it."""
        device = self._started()
        from automl_tl_keras.train import KerasTrainer

        network = functools.partial(self._build, job.network)
        return KerasTrainer(job, network, self._stepper, device)

    def assemble(
        self,
        network: NetworkSpec,
        head: Head,
        weights: Sequence[NDArray[np.float32]],
        path: Path,
        metadata: Mapping[str, str],
    ) -> None:
        """Write the model of a frozen network and a trained head; see ``Backend``."""
        self._started()
        from automl_tl_keras.model import assemble

        assemble(self._build(network), head, weights, path, metadata)

    def load(self, path: Path) -> Model:
        """Open a model file by its content; see ``Backend``."""
        device = self._started()
        from automl_tl_keras.model import load_model

        return load_model(path, self._backbones, device, self._exported)

    def devices(self) -> list[str]:
        """Devices of this machine, best first."""
        return runtime.devices()

    def configure(self, device: str, threads: int) -> str:
        """Choose the device and the number of CPU threads; returns the device.

        Raises:
            UsageError: When this machine has no such device, or Keras runs on another one.
        """
        self._device = runtime.choose(device, threads)
        return self._device

    @functools.cached_property
    def _stepper(self) -> Stepper:
        from automl_tl_keras.steps import create

        return create()

    def _started(self) -> str:
        if self._device is None:
            self._device = runtime.choose("cpu", 0)
        return self._device

    def _build(self, spec: NetworkSpec) -> Network:
        self._started()
        from automl_tl_keras.network import build

        if self._network is None or self._network.spec != spec:
            self._network = None  # two networks need not fit on the device
            gc.collect()  # layers and their graph refer to each other
            self._network = build(spec, self._backbones(spec.backbone))
        return self._network


def _installed(key: str) -> Backbone:
    from automl_tl.plugins import get_plugins

    return get_plugins().backbone(key)
