"""The PyTorch backend: what the core asks, handed to the module that knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from automl_tl_torch import compute
from automl_tl_torch import device as devices
from automl_tl_torch.network import Network, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.protocols import Model, Progress, Trainer
    from automl_tl.specs import Backbone
    from automl_tl.types import Head, NetworkInfo, NetworkSpec, Source, TrainJob


class TorchBackend:
    """Trains with PyTorch; implements ``automl_tl.protocols.Backend``.

    The last network is kept, so that consecutive calls with the same ``NetworkSpec`` build it
    once. Its weights are never trained: a trial that fine-tunes gets a copy.

    Args:
        backbones: Finds a backbone by its key; by default among all installed plugins.
    """

    def __init__(self, backbones: Callable[[str], Backbone] | None = None) -> None:
        self._backbones = backbones or _installed
        self._device = torch.device("cpu")
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
        compute.run(self._build(network), source, cut, pooling, out, progress)

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
        from automl_tl_torch.extract import extract

        extract(self._build(network), source, layer, pooling, out, progress)

    def classifier(self, backbone: str, weights: Path) -> Model:
        """Build a backbone with its original classifier; see ``Backend``."""
        from automl_tl_torch.pretrained import open_classifier

        return open_classifier(self._backbones(backbone), weights, self._device)

    def trainer(self, job: TrainJob) -> Trainer:
        """Prepare a trial; the network is built when the trial needs it."""
        from automl_tl_torch.train import TorchTrainer

        tunes = job.fine_tuning.epochs > 0 and job.fine_tune_at < len(job.info.layers)

        def network() -> Network:
            built = self._build(job.network)
            return built.copy() if tunes else built

        return TorchTrainer(job, network, self._device)

    def assemble(
        self,
        network: NetworkSpec,
        head: Head,
        weights: Sequence[NDArray[np.float32]],
        path: Path,
        metadata: Mapping[str, str],
    ) -> None:
        """Write the model of a frozen network and a trained head; see ``Backend``."""
        from automl_tl_torch.model import assemble

        assemble(self._build(network), head, weights, path, metadata)

    def load(self, path: Path) -> Model:
        """Open a model file by its content; see ``Backend``."""
        from automl_tl_torch.model import load_model

        return load_model(path, self._device, self._backbones, self._exported)

    def devices(self) -> list[str]:
        """Devices of this machine, best first."""
        return devices.devices()

    def configure(self, device: str, threads: int) -> str:
        """Choose the device and the number of CPU threads; returns the device.

        Raises:
            UsageError: When this machine has no such device.
        """
        chosen = devices.choose(device)
        if threads > 0:
            torch.set_num_threads(threads)
        if chosen != self._device:
            self._network = None
            self._device = chosen
        return str(chosen)

    def _build(self, spec: NetworkSpec) -> Network:
        if self._network is None or self._network.spec != spec:
            self._network = None  # two networks need not fit on the device
            self._network = build(spec, self._backbones(spec.backbone), self._device)
        return self._network


def _installed(key: str) -> Backbone:
    from automl_tl.plugins import get_plugins

    return get_plugins().backbone(key)
