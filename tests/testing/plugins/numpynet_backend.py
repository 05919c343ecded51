"""A whole backend in NumPy: what the kit's own tests check, rightly or with a fault."""

from __future__ import annotations

import numpy as np
from numpynet_model import NumpyModel, save
from numpynet_network import NAMES, describe, forward, normalized
from numpynet_train import NumpyTrainer

from automl_tl.augment import draw
from automl_tl.errors import PluginError, UsageError, WeightsError
from automl_tl.plugins import get_plugins
from automl_tl.testing.views import augmented
from automl_tl.training.rows import Rows


class Network:
    """Tensors of one backbone."""

    def __init__(self, backbone, tensors):
        self.backbone, self.tensors = backbone, tensors

    def values(self, x, start, stop, tensors=None):
        if start == 0:
            x = normalized(x, self.backbone.preprocess)
        return forward(tensors or self.tensors, x.astype(np.float32), start, stop)


class NumpyBackend:
    trainer_class = NumpyTrainer
    model_class = NumpyModel

    def describe(self, network):
        self.build(network)
        return describe(network.image_size)

    def build(self, spec):
        backbone = get_plugins().backbone(spec.backbone)
        if spec.image_size < backbone.min_size:
            raise UsageError(f"expected {backbone.min_size} pixels or more, got {spec.image_size}.")
        if spec.weights is not None and not spec.weights.is_file():
            raise WeightsError(f"there is no weights file {spec.weights}.")
        state = np.random.get_state()
        np.random.seed(spec.seed)
        try:
            return Network(backbone, backbone.load(spec.weights))
        finally:
            np.random.set_state(state)

    def classifier(self, backbone, weights):
        raise WeightsError(f"{backbone} has no published weights.")

    def run(self, network, source, cut, pooling, out, progress):
        if pooling and cut != len(NAMES):
            raise PluginError("expected to pool at the last cut.")
        target = np.load(out, mmap_mode="r+")
        for part, values in self._batches(network, source, cut, progress):
            target[part] = (
                values[cut].mean(axis=(1, 2))
                if pooling == "avg"
                else (values[cut].max(axis=(1, 2)) if pooling else values[cut])
            )
        target.flush()

    def extract(self, network, source, layer, pooling, out, progress):
        if layer not in NAMES:
            raise UsageError(f"expected one of {', '.join(NAMES)}, got {layer}.")
        index = NAMES.index(layer) + 1
        parts = [v[index] for _, v in self._batches(network, source, index, progress)]
        tensor = np.concatenate(parts)
        np.save(out, tensor.mean(axis=(1, 2)) if pooling == "avg" else tensor)

    def _batches(self, network, source, stop, progress):
        built, rows = self.build(network), Rows(source)
        drawn = draw(source.view, len(rows)) if source.view else None
        for start in range(0, len(rows), 5):
            part = slice(start, min(start + 5, len(rows)))
            x = rows.chunk(part.start, part.stop)
            if drawn is not None:
                x = augmented(x, type(drawn)(drawn.affine[part], drawn.colour[part]))
            yield part, built.values(x, source.cut, stop)
            progress.step("prefix", part.stop, len(rows))

    def trainer(self, job):
        return self.trainer_class(job, self.build(job.network))

    def assemble(self, network, head, weights, path, metadata):
        save(path, self.build(network).tensors, weights, metadata)

    def load(self, path):
        return self.model_class.open(path, self)

    def devices(self):
        return ["cpu"]

    def configure(self, device, threads):
        if device not in ("auto", "cpu"):
            raise UsageError(f"expected cpu, the one device of NumPy, got {device}.")
        return "cpu"
