"""The backend in NumPy with a fault each."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpynet_backend import NumpyBackend
from numpynet_model import NumpyModel
from numpynet_network import NAMES
from numpynet_train import NumpyTrainer

from automl_tl.errors import StopTraining
from automl_tl.types import Cut


class WrongWidth(NumpyBackend):
    def describe(self, network):
        return replace(super().describe(network), features=25)


class SwappedLayers(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        patches, embed, norm, relu, *rest = info.layers
        return replace(info, layers=(patches, embed, relu, norm, *rest))


class RepeatedLayer(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        return replace(info, layers=(*info.layers[:-1], replace(info.layers[-1], name="relu")))


class HiddenParameters(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        return replace(info, layers=(*info.layers[:-1], replace(info.layers[-1], parameters=0)))


class MissingEnd(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        return replace(info, cuts=info.cuts[:-1])


class FalseCut(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        inside = Cut(6, info.cuts[4].shape, info.cuts[4].flops)
        return replace(info, cuts=(*info.cuts[:5], inside, *info.cuts[5:]))


class WrongShape(NumpyBackend):
    def describe(self, network):
        info = super().describe(network)
        wrong = replace(info.cuts[2], shape=info.cuts[2].shape[::-1])
        return replace(info, cuts=(*info.cuts[:2], wrong, *info.cuts[3:]))


class _MovesBatchNorm(NumpyTrainer):
    def step(self, x, source, *rest):
        if source.cut == 0 and self.moves():
            self.tensors["norm.mean"] *= np.float32(0.9)
        return super().step(x, source, *rest)


class FrozenBatchNormMoves(NumpyBackend):
    class trainer_class(_MovesBatchNorm):
        def moves(self):
            return self.at > NAMES.index("norm")


class TrainedBatchNormMoves(NumpyBackend):
    class trainer_class(_MovesBatchNorm):
        def moves(self):
            return self.at <= NAMES.index("norm")


class TrainsWhatIsFrozen(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def begin(self, stage):
            super().begin(replace(stage, fine_tune_at=0 if stage.number else stage.fine_tune_at))


class LeavesALayerOut(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def trained(self):
            return [name for name in super().trained() if not name.startswith("expand.")]


class StoredDiffers(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def step(self, x, source, *rest):
            return super().step(x + 8 if source.cut == 0 else x, source, *rest)


class UnseededDropout(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def _mask(self, shape, random):
            return super()._mask(shape, np.random.default_rng())


class ReadsTooEarly(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def run(self, progress):
            for source in self.job.tune_train:
                np.load(source.path)
            return super().run(progress)


class SwallowsStops(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def run(self, progress):
            try:
                return super().run(progress)
            except StopTraining:
                return self.facts()


class IgnoresWeightDecay(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def __init__(self, job, network):
            super().__init__(replace(job, weight_decay=0.0), network)


class _IgnoresPreprocess(NumpyBackend):
    def build(self, spec):
        built = super().build(spec)
        rule = replace(built.backbone.preprocess, **self.ignored)
        built.backbone = replace(built.backbone, preprocess=rule)
        return built


class IgnoresTheMean(_IgnoresPreprocess):
    ignored: ClassVar = {"mean": (0.5, 0.5, 0.5)}


class IgnoresTheStd(_IgnoresPreprocess):
    ignored: ClassVar = {"std": (0.25, 0.25, 0.25)}


class IgnoresTheChannels(_IgnoresPreprocess):
    ignored: ClassVar = {"channels": "rgb"}


class IgnoresPreprocess(_IgnoresPreprocess):
    ignored: ClassVar = {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "channels": "rgb",
    }


class _TunesOtherwise(NumpyBackend):
    """Fine-tunes a job that is not the one that was given."""

    class trainer_class(NumpyTrainer):
        def begin(self, stage):
            given = self.job
            self.job = replace(given, **self.network.changes) if stage.number else given
            super().begin(stage)

    def build(self, spec):
        built = super().build(spec)
        built.changes = self.changes
        return built


class TunesWithoutWeightDecay(_TunesOtherwise):
    changes: ClassVar = {"weight_decay": 0.0}


class TunesWithoutClassWeights(_TunesOtherwise):
    changes: ClassVar = {"class_weights": None}


class TunesWithoutSmoothing(_TunesOtherwise):
    changes: ClassVar = {"label_smoothing": 0.0}


class IgnoresFineTuneOptimizer(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def __init__(self, job, network):
            super().__init__(replace(job, fine_tune_optimizer=None), network)


class ReadsTheFirstSource(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def __init__(self, job, network):
            super().__init__(replace(job, tune_train=job.tune_train[:1]), network)


class StaysAtTheLastSource(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def __init__(self, job, network):
            more = job.tune_train[-1:] * (job.fine_tuning.epochs - len(job.tune_train))
            super().__init__(replace(job, tune_train=job.tune_train + more), network)


class SavesTheFirstEpoch(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def remember(self):
            if self.kept is None:
                super().remember()


class SavesTheHeadAsItIs(NumpyBackend):
    class trainer_class(NumpyTrainer):
        def save(self, path, metadata):
            self.kept = self.kept and (self.kept[0], self.head)
            super().save(path, metadata)


class MirrorsViews(NumpyBackend):
    def _batches(self, network, source, stop, progress):
        if source.view:
            source = replace(source, view=replace(source.view, index=source.view.index + 1))
        return super()._batches(network, source, stop, progress)


class CalibratesNothing(NumpyBackend):
    class model_class(NumpyModel):
        def calibrate(self, temperature):
            pass


class LossyExport(NumpyBackend):
    class model_class(NumpyModel):
        def export(self, format, path, metadata):
            tensors = {name: value.round(1) for name, value in self.tensors.items()}
            self.tensors = tensors
            super().export(format, path, metadata)


class IgnoresTheImageSize(NumpyBackend):
    def build(self, spec):
        return super().build(replace(spec, image_size=max(8, spec.image_size)))
