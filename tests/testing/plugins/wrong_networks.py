"""Plugins whose network or backend is wrong, each in one way."""

from __future__ import annotations

from pathlib import Path

import numpynet

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import PretrainedWeights


class Plugin:
    """The right plugin with another backend, or with another backbone."""

    def __init__(self, fault=None, **changes):
        self.fault, self.changes = fault, changes

    def _load(self):
        import faulty_backends

        return getattr(faulty_backends, self.fault)()

    @hookimpl
    def automl_tl_backends(self):
        return [numpynet.backend(self._load) if self.fault else numpynet.backend()]

    @hookimpl
    def automl_tl_backbones(self):
        return [numpynet.backbone(**self.changes)]


def _nan(weights):
    tensors = numpynet.load(weights)
    tensors["last.bias"][:] = float("nan")
    return tensors


def _unseeded(weights):
    import numpy as np

    tensors = numpynet.load(weights)
    tensors["last.bias"] += np.random.default_rng().normal(size=24).astype(np.float32)
    return tensors


def _crash(weights):
    raise ZeroDivisionError("a bug in the loader")


def _published(file):
    return PretrainedWeights("mine", path=lambda: Path(__file__).with_name(file))


wrong_width = Plugin("WrongWidth")
swapped_layers = Plugin("SwappedLayers")
repeated_layer = Plugin("RepeatedLayer")
hidden_parameters = Plugin("HiddenParameters")
missing_end = Plugin("MissingEnd")
false_cut = Plugin("FalseCut")
wrong_shape = Plugin("WrongShape")
frozen_batch_norm_moves = Plugin("FrozenBatchNormMoves")
trained_batch_norm_moves = Plugin("TrainedBatchNormMoves")
trains_what_is_frozen = Plugin("TrainsWhatIsFrozen")
leaves_a_layer_out = Plugin("LeavesALayerOut")
stored_differs = Plugin("StoredDiffers")
unseeded_dropout = Plugin("UnseededDropout")
reads_too_early = Plugin("ReadsTooEarly")
swallows_stops = Plugin("SwallowsStops")
ignores_weight_decay = Plugin("IgnoresWeightDecay")
ignores_the_mean = Plugin("IgnoresTheMean")
ignores_the_std = Plugin("IgnoresTheStd")
ignores_the_channels = Plugin("IgnoresTheChannels")
ignores_preprocess = Plugin("IgnoresPreprocess")
tunes_without_weight_decay = Plugin("TunesWithoutWeightDecay")
tunes_without_class_weights = Plugin("TunesWithoutClassWeights")
tunes_without_smoothing = Plugin("TunesWithoutSmoothing")
ignores_fine_tune_optimizer = Plugin("IgnoresFineTuneOptimizer")
reads_the_first_source = Plugin("ReadsTheFirstSource")
stays_at_the_last_source = Plugin("StaysAtTheLastSource")
saves_the_first_epoch = Plugin("SavesTheFirstEpoch")
saves_the_head_as_it_is = Plugin("SavesTheHeadAsItIs")
mirrors_views = Plugin("MirrorsViews")
calibrates_nothing = Plugin("CalibratesNothing")
lossy_export = Plugin("LossyExport")
ignores_the_image_size = Plugin("IgnoresTheImageSize")
backend_cannot_load = Plugin("NoSuchBackend")
nan_output = Plugin(load=_nan)
unseeded_weights = Plugin(load=_unseeded)
loader_crashes = Plugin(load=_crash)
wrong_parameters = Plugin(parameters=1000)
pickled_weights = Plugin(pretrained=_published("pickled.pt"))
missing_weights = Plugin(pretrained=_published("nothing.safetensors"))
ignored_weights = Plugin(
    load=lambda weights: numpynet.load(None), pretrained=_published("published.safetensors")
)
