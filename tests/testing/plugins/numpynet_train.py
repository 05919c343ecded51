"""Training in NumPy: the steps for the core's loop, with the core's optimizers."""

from __future__ import annotations

import numpy as np
from numpynet_model import head_logits, pool, save
from numpynet_network import NAMES, backward, trainable

from automl_tl.errors import TrialError
from automl_tl.training import loop
from automl_tl.training.head import kernels
from automl_tl.training.rows import Rows
from automl_tl.training.updates import Update
from automl_tl.types import TrainFacts

END = len(NAMES)


class NumpyTrainer:
    def __init__(self, job, network):
        self.job, self.network = job, network
        self.tensors = {name: value.copy() for name, value in network.tensors.items()}
        self.head = self._first_head() if job.head_weights is None else list(job.head_weights)
        self.head = [array.copy() for array in self.head]
        self.names, self.kept = [], None
        if job.head_weights is not None:
            self.remember()

    def _first_head(self):
        width = self.job.info.features
        if self.job.head.pooling == "flatten":
            width = int(np.prod(self.job.info.cuts[-1].shape))
        drawn = kernels(self.job.head, width, self.job.seed)
        return [a for kernel in drawn for a in (kernel, np.zeros(kernel.shape[1], np.float32))]

    def run(self, progress):
        loop.train(self.job, self, progress)
        return self.facts()

    def facts(self):
        head = sum(array.size for array in self.head)
        layers = sum(layer.parameters for layer in self.job.info.layers)
        tuned = sum(self.tensors[name].size for name in self.names)
        count = len(self.names) + len(self.head)
        return TrainFacts(layers + head, tuned + head, count, "cpu", "float32")

    def save(self, path, metadata):
        if self.kept is None:
            raise TrialError("no epoch has ended, so there is no model to save.")
        save(path, *self.kept, metadata)

    def remember(self):
        tensors = {name: value.copy() for name, value in self.tensors.items()}
        self.kept = tensors, [array.copy() for array in self.head]

    def begin(self, stage):
        self.at = stage.fine_tune_at
        self.names = self.trained()
        self.weights = [self.tensors[name] for name in self.names] + self.head
        self.views = [a[None] if a.ndim == 2 else a[None, None] for a in self.weights]
        self.update = Update(stage.optimizer, 1, self.views)

    def trained(self):
        return trainable(self.at)

    def train(self, epoch):
        rows, total, done = Rows(epoch.source), 0.0, 0
        random = np.random.default_rng(epoch.key)
        batches = rows.batches(epoch.order, self.job.batch_size)
        for positions, rate in zip(batches, epoch.rates, strict=True):
            x = rows.take(positions)
            total += self.step(x, epoch.source, self.job.train_labels[positions], rate, random)
            done += len(positions)
            yield done, total

    def step(self, x, source, labels, rate, random):
        stop = END if source.pooling is None else source.cut
        values = (
            self.network.values(x, source.cut, stop, self.tensors)
            if stop > source.cut
            else {stop: x.astype(np.float32)}
        )
        head, features = self.job.head, pool(values[stop], self.job.head)
        inputs, masks, y = [], [], features
        for layer in range(0, len(self.head), 2):
            if not head.units or layer:
                masks.append(self._mask(y.shape, random))
                y = y * masks[-1]
            inputs.append(y)
            y = y @ self.head[layer] + self.head[layer + 1]
            if layer + 2 < len(self.head):
                y = np.maximum(y, 0)
        loss, slope = self._loss(y, labels)
        gradients = []
        for layer in range(len(self.head) - 2, -1, -2):
            x = inputs.pop()
            gradients = [x.T @ slope, slope.sum(axis=0), *gradients]
            slope = slope @ self.head[layer].T
            if masks:
                slope = slope * masks.pop()
            if layer:
                slope = slope * (x > 0)
        found = {}
        if self.names:
            found = backward(self.tensors, values, self._unpooled(slope, values[END]), self.at)
        gradients = [found[name] for name in self.names] + gradients
        shaped = [
            g.astype(np.float32).reshape(v.shape)
            for g, v in zip(gradients, self.views, strict=True)
        ]
        rates, decay = (
            np.full((1, 1, 1), value, np.float32) for value in (rate, self.job.weight_decay)
        )
        self.update.step(self.views, shaped, rates, decay)
        return loss

    def _mask(self, shape, random):
        keep = 1 - self.job.head.dropout
        return (random.random(shape) < keep).astype(np.float32) / np.float32(keep)

    def _loss(self, logits, labels):
        job, rows = self.job, np.arange(len(labels))
        logits = logits - logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        wanted = np.full(logits.shape, job.label_smoothing / logits.shape[1], np.float32)
        wanted[rows, labels] += 1 - job.label_smoothing
        weights = np.ones(len(labels), np.float32)
        if job.class_weights is not None:
            weights = job.class_weights[labels]
        slope = (np.exp(logs) - wanted) * (weights / len(labels))[:, None]
        return float((-(wanted * logs).sum(axis=1) * weights).sum()), slope

    def _unpooled(self, slope, output):
        head, side = self.job.head, output.shape[1]
        slope = slope * np.float32(head.scale)
        if head.pooling == "flatten":
            return slope.reshape(output.shape)
        if head.pooling == "avg":
            return np.broadcast_to(slope[:, None, None] / np.float32(side**2), output.shape)
        return slope[:, None, None] * (output == output.max(axis=(1, 2), keepdims=True))

    def validate(self, source):
        rows = Rows(source)
        for start in range(0, len(rows), 5):
            x = rows.chunk(start, min(start + 5, len(rows)))
            if source.pooling is None:
                x = self.network.values(x, source.cut, END, self.tensors)[END]
            yield head_logits(x.astype(np.float32), self.job.head, self.head)
