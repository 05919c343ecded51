"""What was computed with an edited file of a person's own is not taken for what it computes now."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from automl_tl import own_code, plugin_files, plugins
from automl_tl.cache.store import Store
from automl_tl.host import BackendHost
from automl_tl.networks import describe
from automl_tl.types import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = NetworkSpec("numpynet/patches", 16, None, "random:0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugin file that imports from files beside it."""
    for file in (Path(__file__).parent / "testing" / "plugins").glob("numpynet*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(plugin_files.VARIABLE, str(tmp_path / "numpynet.py"))
    plugins.get_plugins.cache_clear()
    yield tmp_path
    plugins.get_plugins.cache_clear()


def version(folder: Path) -> str:
    """Describe the network in a new process, as every command does."""
    with BackendHost("numpynet", "cpu") as host:
        return describe(NETWORK, host, Store(folder / "cache")).version


def test_a_file_that_a_plugin_imports_is_a_part_of_the_networks_version(folder: Path) -> None:
    before = version(folder)
    own = folder / "numpynet_network.py"
    text = own.read_text()
    own.write_text(text + "# edited\n")
    edited = version(folder)
    own.write_text(text)
    assert version(folder) == before != edited


def test_the_backend_is_not_asked_again_while_the_files_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version(folder)
    monkeypatch.setattr(BackendHost, "call", lambda *_: pytest.fail("asked again"))
    assert version(folder) == before


def test_a_description_that_tells_of_no_files_is_asked_for_again(folder: Path) -> None:
    before = version(folder)
    (known,) = (folder / "cache" / "networks").glob("*.json")
    facts = json.loads(known.read_text())
    assert str(folder / "numpynet_network.py") in facts.pop("own_code")
    known.write_text(json.dumps({**facts, "version": "of another time"}))
    assert version(folder) == before


def test_what_is_installed_and_what_is_a_plugin_is_nobodys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "layers_of_my_own.py"
    own.write_text("import antigravity_of_my_own\n")
    package = tmp_path / "antigravity_of_my_own" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("layers_of_my_own")
    found = own_code.loaded()
    assert {str(own), str(package)} <= found.keys()
    for module in (json, np, pytest, own_code):
        assert module.__file__ not in found
    known = {file: found[file] for file in (str(own), str(package))}
    assert own_code.unchanged(known)
    package.unlink()
    assert not own_code.unchanged(known)


def test_the_same_files_elsewhere_are_the_same() -> None:
    assert own_code.identity({}) == ""
    here, there = {"/a/x.py": "1", "/a/y.py": "2"}, {"/b/y.py": "2", "/c/x.py": "1"}
    assert own_code.identity(here) == own_code.identity(there)
    assert own_code.identity(here) != own_code.identity({"/a/x.py": "1"})


def test_what_only_says_that_it_is_a_module_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        """As cffi's, which `cryptography` loads: a module by ``isinstance``, without a dict."""

        __slots__ = ()
        __class__ = ModuleType

    assert isinstance(Library(), ModuleType)
    before = own_code.loaded()
    monkeypatch.setitem(sys.modules, "a_library_of_cffi", Library())
    assert own_code.loaded() == before
