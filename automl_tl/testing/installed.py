"""The plugins that are installed, by name, none of them imported."""

from __future__ import annotations

import difflib
import importlib.metadata

from automl_tl.errors import UsageError
from automl_tl.hookspecs import PROJECT
from automl_tl.plugins import BUILTIN


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of all plugins by name."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=PROJECT)}


def distribution(plugin: str) -> str:
    """Return name and version of the distribution that a plugin comes from.

    Raises:
        UsageError: When there is no such plugin.
    """
    if plugin == BUILTIN:
        return f"{BUILTIN} {importlib.metadata.version(BUILTIN)}"
    known = entry_points()
    if plugin not in known:
        names = sorted([BUILTIN, *known])
        close = difflib.get_close_matches(plugin, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}."
        raise UsageError(f"Unknown plugin {plugin!r}: {hint}")
    dist = known[plugin].dist
    return f"{dist.name} {dist.version}" if dist else "unknown"
