"""Versions in cache keys and model files are those of what Keras runs on, however installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl_keras import frameworks, plugin, runtime

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that these modules come from these distributions, on a machine without GPUs."""

    def pretend(**distributions: str) -> None:
        def find(name: str) -> object:
            return object() if name in distributions else None

        def known(name: str) -> Any:
            if name in distributions.values():
                return SimpleNamespace(version=f"1 of {name}")
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setattr(importlib.metadata, "distribution", known)
        packages = {module: [name] for module, name in distributions.items()}
        monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: packages)

    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    return pretend


@pytest.mark.parametrize(
    ("installed", "framework"),
    [
        ({"tensorflow": "tensorflow", "torch": "torch"}, "tensorflow"),
        ({"torch": "torch", "jax": "jax"}, "torch"),
        ({"jax": "jax"}, "jax"),
    ],
)
def test_versions_are_those_of_the_framework_that_keras_takes(
    installed: dict[str, str], framework: str, install: Callable[..., None]
) -> None:
    install(**installed)
    (backend,) = plugin.automl_tl_backends()
    assert backend.packages == ("keras", framework)
    assert runtime._best() == framework


@pytest.mark.parametrize(
    ("variable", "value", "frameworks"),
    [
        ("KERAS_BACKEND", "torch", ("torch",)),
        ("CUDA_VISIBLE_DEVICES", "0", ("tensorflow", "torch")),
    ],
)
def test_what_the_user_has_set_wins_and_where_a_gpu_decides_all_count(
    variable: str,
    value: str,
    frameworks: tuple[str, ...],
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(tensorflow="tensorflow", torch="torch")
    monkeypatch.setenv(variable, value)
    (backend,) = plugin.automl_tl_backends()
    assert backend.packages == ("keras", *frameworks)


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-cpu", "tensorflow-of-a-vendor"])
def test_a_framework_may_be_installed_under_several_names(
    name: str, install: Callable[..., None]
) -> None:
    install(keras="keras", tensorflow=name)
    (backend,) = plugin.automl_tl_backends()
    assert backend.packages == ("keras", name)
    assert frameworks.version("tensorflow") == f"1 of {name}"


def test_a_framework_that_pip_does_not_know_has_no_version(install: Callable[..., None]) -> None:
    install()
    assert frameworks.version("tensorflow") == "unknown"
    (backend,) = plugin.automl_tl_backends()
    assert backend.packages == ("keras",)
