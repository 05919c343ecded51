"""The plugins that are installed or given as files, by name."""

from __future__ import annotations

import difflib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from automl_tl import builtin, plugin_files
from automl_tl.errors import UsageError
from automl_tl.hookspecs import PROJECT
from automl_tl.installed import BUILTIN

if TYPE_CHECKING:
    from pathlib import Path


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of all plugins by name."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=PROJECT)}


def files() -> dict[str, Path]:
    """Return the plugins that are one file each by name."""
    return {path.stem: path for path in plugin_files.listed()}


def load(plugin: str) -> Any:
    """Import a plugin; raises whatever that raises."""
    if plugin == BUILTIN:
        return builtin
    known = entry_points()
    return known[plugin].load() if plugin in known else plugin_files.load(files()[plugin])


def distribution(plugin: str) -> str:
    """Return name and version of the distribution that a plugin comes from, or its file.

    Raises:
        UsageError: When there is no such plugin.
    """
    if plugin == BUILTIN:
        return f"{BUILTIN} {importlib.metadata.version(BUILTIN)}"
    known = entry_points()
    if plugin not in known and plugin in files():
        return str(files()[plugin])
    if plugin not in known:
        names = sorted([BUILTIN, *known, *files()])
        close = difflib.get_close_matches(plugin, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}."
        raise UsageError(f"Unknown plugin {plugin!r}: {hint}")
    dist = known[plugin].dist
    return f"{dist.name} {dist.version}" if dist else "unknown"
