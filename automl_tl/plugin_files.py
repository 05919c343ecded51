"""Plugins that are one Python file each: which ones this process and its children load.

Loading a file runs its code. So the only ways in are a person's own words: the command line, a file
given with ``--config``, the Python interface, and the environment variable ``AUTOML_TL_PLUGINS``,
which also hands the files to child processes. What a study has recorded is never loaded by itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import shlex
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

VARIABLE = "AUTOML_TL_PLUGINS"
"""Absolute paths, joined with ``os.pathsep``."""


def listed() -> tuple[Path, ...]:
    """Return the files that are to be loaded, absolute, in order."""
    texts = os.environ.get(VARIABLE, "").split(os.pathsep)
    return tuple(dict.fromkeys(Path(text).absolute() for text in texts if text))


def add(files: Iterable[str | Path]) -> bool:
    """Have this process and the children that it starts from now on load more files.

    Args:
        files: Relative to the current folder where they are not absolute.

    Returns:
        Whether one of them is new.

    Raises:
        UsageError: When one is not there or no Python file; nothing is added then.
    """
    known = listed()
    paths = tuple(dict.fromkeys((*known, *map(_checked, files))))
    if paths == known:
        return False
    os.environ[VARIABLE] = os.pathsep.join(map(str, paths))
    return True


def load(path: Path) -> ModuleType:
    """Run a file and return it as a module; raises whatever the file raises."""
    name = f"automl_tl_plugin_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a loader was given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being run
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def code_hash(plugin: Any) -> str:
    """Hash the Python files of a plugin: those of its package, or its only one."""
    module = inspect.getmodule(plugin)
    if module is None or module.__file__ is None:
        return "unknown"
    package = sys.modules.get(module.__name__.partition(".")[0], module)
    file = Path(package.__file__ or module.__file__)  # a namespace, which others share, has none
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    try:
        for one in files:
            digest.update(one.read_bytes())
    except OSError:  # in an archive
        return "unknown"
    return digest.hexdigest()[:16]


def flags(files: Iterable[str | Path] | None = None) -> str:
    """Return what a person types to load files, quoted for a shell: `` --plugin FILE`` for each.

    Args:
        files: By default those that are loaded already: a command that is offered to be copied must
            not load what only a study names.
    """
    chosen = listed() if files is None else files
    return "".join(f" --plugin {shlex.quote(str(file))}" for file in chosen)


def _checked(file: str | Path) -> Path:
    path = Path(file).expanduser().absolute()
    if path.suffix != ".py":
        raise UsageError(f"--plugin {file}: expected a Python file, whose name ends in .py.")
    if not path.is_file():
        raise UsageError(f"--plugin {file}: expected a Python file, but there is no such file.")
    if os.pathsep in str(path):
        raise UsageError(
            f"--plugin {file}: expected a path without {os.pathsep!r}, got {path}; rename it."
        )
    return path
