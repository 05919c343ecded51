"""Files of a person's own code that a process has loaded: nothing else tells that one was changed.

What is installed has a version, and a plugin itself a hash, see ``Plugins.provider``. What a plugin
imports from files beside it has neither.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_OURS = ("automl_tl", "__main__", "__mp_main__")
"""Begin the names of the core, of its plugins, of those that are files, and of what was started."""


def loaded() -> dict[str, str]:
    """Return the files of this process's modules that belong to no installed package.

    Returns:
        Absolute paths, each with a hash of the content.
    """
    python = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
    files = {
        file
        for name, module in list(sys.modules.items())
        if not name.startswith(_OURS) and (file := _file(module))
    }
    return {
        file: _hash(file)
        for file in sorted(files)
        if not file.startswith(python) and not any(one in file for one in _INSTALLED)
    }


def unchanged(files: Mapping[str, str]) -> bool:
    """Say whether files have the content that they had."""
    return all(_hash(file) == known for file, known in files.items())


def identity(files: Mapping[str, str]) -> str:
    """Return a hash of the content of files, wherever they lie; empty for none."""
    if not files:
        return ""
    return hashlib.sha256(" ".join(sorted(files.values())).encode()).hexdigest()[:16]


def _file(module: object) -> str | None:
    if not issubclass(type(module), ModuleType):  # cffi's only say that they are modules
        return None
    # Asked for an attribute, a module that is not imported before it is needed would be.
    file = object.__getattribute__(module, "__dict__").get("__file__")
    return file if isinstance(file, str) and os.path.isabs(file) else None


def _hash(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    except OSError:  # in an archive, or gone
        return "unknown"
