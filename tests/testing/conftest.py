"""Makes the plugins in ``plugins/`` visible as installed ones, here and in child processes."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl.plugins import get_plugins
from automl_tl.testing import kit, preprocess_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.findings import Finding

PLUGINS = Path(__file__).with_name("plugins")


class Here:
    """A backend in this process, behind what a check asks of a ``BackendHost``."""

    log = None

    def __init__(self, name: str) -> None:
        self.name = name
        self._backend = get_plugins().backend(name).load()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        """There is no process to end."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Install a module, or ``module:object``, of ``plugins/`` as a plugin; returns its name."""
    site = tmp_path / "site"
    paths = [str(site), str(PLUGINS), *filter(None, [os.environ.get("PYTHONPATH")])]

    def register(value: str) -> str:
        name = value.rpartition(":")[2].replace("_", "-")
        folder = site / "kit_tests-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: kit-tests\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[automl_tl]\n{name} = {value}\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.syspath_prepend(str(PLUGINS))
        monkeypatch.syspath_prepend(str(site))
        get_plugins.cache_clear()
        return name

    yield register
    get_plugins.cache_clear()


@pytest.fixture
def findings(install: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what the kit finds of the network and the backend of a plugin, in this process."""

    def found(value: str) -> list[Finding]:
        install(value)
        for module in (kit, preprocess_checks):
            host = lambda name, *_, **__: nullcontext(Here(name))  # noqa: E731
            monkeypatch.setattr(module, "BackendHost", host)
        backbone = get_plugins().backbone("numpynet/patches")
        result = kit.check_backbone(backbone)
        if all(finding.passed for finding in result):
            result += kit.check_backend("numpynet", checked=[backbone.key])
        return result

    return found
