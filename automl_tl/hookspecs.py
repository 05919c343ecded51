"""The hooks. A plugin implements any of them and returns plain values of ``automl_tl.specs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from automl_tl.specs import (
        Backbone,
        BackendSpec,
        DatasetSpec,
        EngineSpec,
        FinishedEpoch,
        FinishedTrial,
    )

__all__ = [
    "PROJECT",
    "automl_tl_backbones",
    "automl_tl_backends",
    "automl_tl_datasets",
    "automl_tl_engines",
    "automl_tl_epoch_finished",
    "automl_tl_search_space",
    "automl_tl_trial_finished",
    "hookimpl",
    "hookspec",
]

PROJECT = "automl_tl"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def automl_tl_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Announce the frameworks that this plugin trains with.

    Called once in every process that looks for plugins, before any framework is imported. It must
    not import one: only ``BackendSpec.load`` does, in a process of its own.

    Returns:
        One ``BackendSpec`` a framework. A name that another plugin has taken already is reported,
        and left out.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl
        from automl_tl.specs import BackendSpec


        def load():
            from automl_tl_torch.backend import TorchBackend  # only now is PyTorch imported

            return TorchBackend()


        @hookimpl
        def automl_tl_backends():
            return [BackendSpec("mine", load, formats={"onnx": ".onnx"}, packages=("torch",))]
        ```
    """


@hookspec
def automl_tl_backbones() -> Iterable[Backbone]:  # type: ignore[empty-body]
    """Announce pretrained networks.

    Called once in every process that looks for plugins. It must not import a framework: only
    ``Backbone.load`` does, in the backend's process.

    Returns:
        One ``Backbone`` a network. A key that another plugin has taken already is reported, and
        left out.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl
        from automl_tl.specs import Backbone


        def load(weights):
            from torch import nn

            return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 10, 1))


        @hookimpl
        def automl_tl_backbones():
            return [Backbone("minute", "torch", load, input_size=32, parameters=618)]
        ```
    """


@hookspec
def automl_tl_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Announce data sources that have a name.

    Called once in every process that looks for plugins. ``DatasetSpec.load`` is called only when
    somebody types the name in place of a folder; it writes below the folder that it is given,
    where it finds its files the next time.

    Returns:
        One ``DatasetSpec`` a data source. A name that another plugin has taken already is
        reported, and left out.

    Example:
        ```python
        from automl_tl.data.index import DataIndex, ImageItem
        from automl_tl.hookspecs import hookimpl
        from automl_tl.specs import DatasetSpec


        def load(cache_directory):
            from PIL import Image

            place = cache_directory / "datasets" / "greys"
            place.mkdir(parents=True, exist_ok=True)
            items = []
            for grey in range(256):
                path = place / f"{grey:03}.png"
                Image.new("L", (16, 16), grey).save(path)
                items.append(ImageItem(path, path.name, label=grey // 128))
            return DataIndex("greys", "greys", ("dark", "light"), tuple(items))


        @hookimpl
        def automl_tl_datasets():
            return [DatasetSpec("greys", load, description="Squares, dark or light")]
        ```
    """


@hookspec
def automl_tl_engines() -> Iterable[EngineSpec]:  # type: ignore[empty-body]
    """Announce ways to start workers.

    Called once in every process that looks for plugins. ``EngineSpec.create`` is called by a search
    that names the engine with ``--engine``, before its first trial.

    Returns:
        One ``EngineSpec`` a way. A name that another plugin has taken already is reported, and left
        out.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl
        from automl_tl.specs import EngineSpec


        def create(settings):
            import os

            from automl_tl.engines.local import LocalEngine

            os.nice(10)  # the workers inherit it: other programs come first
            return LocalEngine(settings)


        @hookimpl
        def automl_tl_engines():
            return [EngineSpec("nice", create)]
        ```
    """


@hookspec
def automl_tl_search_space(backbone: Backbone) -> Mapping[str, Any] | None:
    """Narrow, or widen, what is searched for one backbone.

    Called once for each backbone of a study: when the study is created, when it is resumed, and in
    every worker, so it must answer the same every time. What a person sets with ``--set`` counts
    more, and of two plugins that name the same parameter the later counts. An answer that cannot be
    searched is left out as a whole and reported, by the plugin's name, when the search begins.

    Args:
        backbone: One of the study's.

    Returns:
        Parameters as ``--set`` takes them: a value, a list of choices, or a range
        ``{"low": ..., "high": ...}``, with ``log`` and ``step`` if need be; None for nothing.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl


        @hookimpl
        def automl_tl_search_space(backbone):
            if backbone.name.startswith("vit"):
                return {"learning_rate": {"low": 1e-4, "high": 1e-2}, "optimizer": ["adamw", "sgd"]}
            return None
        ```
    """


@hookspec
def automl_tl_epoch_finished(epoch: FinishedEpoch) -> None:
    """Observe a finished epoch.

    Called only for studies that name the plugin with ``--log``, in the process that runs the trial,
    in a thread of its own, one call after the other. What it raises is reported once and ignored.

    Args:
        epoch: What is known of it.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl


        @hookimpl
        def automl_tl_epoch_finished(epoch):
            with (epoch.directory / "epochs.csv").open("a") as file:
                print(epoch.number, epoch.epoch, epoch.value, sep=",", file=file)
        ```
    """


@hookspec
def automl_tl_trial_finished(trial: FinishedTrial) -> None:
    """Observe a finished trial.

    Called like ``automl_tl_epoch_finished``, after the trial's last epoch. The worker waits until
    it returns, at most 30 seconds; an observer that takes longer is told nothing more.

    Args:
        trial: What is known of it.

    Example:
        ```python
        from automl_tl.hookspecs import hookimpl


        @hookimpl
        def automl_tl_trial_finished(trial):
            with (trial.directory / "trials.csv").open("a") as file:
                print(trial.number, trial.state, trial.value, sep=",", file=file)
        ```
    """
