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

PROJECT = "automl_tl"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def automl_tl_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Return the frameworks that this plugin trains with.

    Example:
        ```python
        @hookimpl
        def automl_tl_backends():
            return [BackendSpec("torch", load=load_backend, formats={"onnx": ".onnx"})]
        ```
    """


@hookspec
def automl_tl_backbones() -> Iterable[Backbone]:  # type: ignore[empty-body]
    """Return the backbones that this plugin adds. Must not import a framework.

    Example:
        ```python
        @hookimpl
        def automl_tl_backbones():
            return [Backbone("my_net", "torch", load=load, input_size=224, parameters=1_000_000)]
        ```
    """


@hookspec
def automl_tl_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return named data sources.

    Example:
        ```python
        @hookimpl
        def automl_tl_datasets():
            return [DatasetSpec("digits", load=load_digits)]
        ```
    """


@hookspec
def automl_tl_engines() -> Iterable[EngineSpec]:  # type: ignore[empty-body]
    """Return ways to start workers.

    Example:
        ```python
        @hookimpl
        def automl_tl_engines():
            return [EngineSpec("local", create=LocalEngine)]
        ```
    """


@hookspec
def automl_tl_search_space(backbone: Backbone) -> Mapping[str, Any] | None:
    """Return what a backbone adds to, or narrows in, the default space; None for nothing.

    The mapping has the form of ``--set``: a parameter's name and a fixed value, a list of choices
    or a range ``{"low": ..., "high": ...}``.

    Example:
        ```python
        @hookimpl
        def automl_tl_search_space(backbone):
            if "vit" in backbone.name:
                return {"learning_rate": {"low": 1e-4, "high": 1e-2}}
        ```
    """


@hookspec
def automl_tl_epoch_finished(epoch: FinishedEpoch) -> None:
    """Observe a finished epoch.

    Called only for studies that name the plugin with ``--log``, in the process that runs the trial,
    in a thread of its own, one call after the other. What it raises is reported once and ignored.

    Example:
        ```python
        @hookimpl
        def automl_tl_epoch_finished(epoch):
            print(epoch.number, epoch.epoch, epoch.value)
        ```
    """


@hookspec
def automl_tl_trial_finished(trial: FinishedTrial) -> None:
    """Observe a finished trial; called like ``automl_tl_epoch_finished``, after its last epoch.

    Example:
        ```python
        @hookimpl
        def automl_tl_trial_finished(trial):
            print(trial.number, trial.value)
        ```
    """
