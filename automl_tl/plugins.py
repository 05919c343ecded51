"""Discovery of plugins: the core's own, entry points of the group ``automl_tl``, and single files.

A plugin that cannot be imported, breaks a hook's contract or repeats a name is reported once, by
name, with its error; everything else goes on working.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import TYPE_CHECKING, Any

import pluggy

from automl_tl import builtin, hookspecs, plugin_files
from automl_tl.errors import PluginError
from automl_tl.installed import BUILTIN, OBSERVER_HOOKS, Listing, Plugins, Problem, reason, unknown
from automl_tl.specs import Backbone, BackendSpec, DatasetSpec, EngineSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path


def discover() -> Plugins:
    """Load every plugin that is installed or given as a file. Reports problems, never raises."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager)
    manager.register(builtin, BUILTIN)
    distributions = {BUILTIN: f"automl-tl {importlib.metadata.version('automl-tl')}"}
    for name, load, origin in _found():
        try:
            if name in distributions:
                taken = f"{origin()}: its name is taken by {distributions[name]}"
                raise PluginError(f"{taken}; rename it.")
            module = load()
            _reject_unknown_hooks(module)
            manager.register(module, name)
            manager.check_pending()
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            if manager.has_plugin(name) and name not in distributions:
                manager.unregister(name=name)
            plugins.problems.append(Problem(name, f"not loaded: {reason(error)}"))
        else:
            distributions[name] = origin()
    _collect(plugins, distributions)
    return plugins


@functools.cache
def get_plugins() -> Plugins:
    """Return the plugins of this process, discovered once."""
    return discover()


def use_files(files: Iterable[str | Path]) -> None:
    """Have this process and its children load more plugins, each one Python file.

    Raises:
        UsageError: When one is not there or no Python file.
    """
    if plugin_files.add(files):
        get_plugins.cache_clear()


def _found() -> Iterator[tuple[str, Callable[[], Any], Callable[[], str]]]:
    """Yield name, loader and origin of every plugin: entry points, then files."""
    for entry in sorted(importlib.metadata.entry_points(group=hookspecs.PROJECT)):
        yield entry.name, entry.load, functools.partial(_distribution, entry)
    for path in plugin_files.listed():
        yield path.stem, functools.partial(plugin_files.load, path), functools.partial(str, path)


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _collect(plugins: Plugins, distributions: Mapping[str, str]) -> None:
    provided: dict[str, dict[str, list[str]]] = {}
    owners: dict[tuple[str, str], str] = {}
    for hook, kind, expected, table in (
        ("automl_tl_backends", "backends", BackendSpec, plugins.backends),
        ("automl_tl_backbones", "backbones", Backbone, plugins.backbones),
        ("automl_tl_datasets", "datasets", DatasetSpec, plugins.datasets),
        ("automl_tl_engines", "engines", EngineSpec, plugins.engines),
    ):
        for plugin, values in plugins.call(hook, plugins.problems):
            for value in _values(plugins, plugin, hook, values):
                if not isinstance(value, expected):
                    message = f"{hook} returned {value!r}, expected {expected.__name__}."
                    plugins.problems.append(Problem(plugin, message))
                    continue
                name = value.key if isinstance(value, Backbone) else value.name
                if (kind, name) in owners:
                    message = f"{name} is already provided by {owners[kind, name]}; left out."
                    plugins.problems.append(Problem(plugin, message))
                    continue
                owners[kind, name] = plugin
                table[name] = value  # type: ignore[assignment]
                provided.setdefault(plugin, {}).setdefault(kind, []).append(name)
    for hook in OBSERVER_HOOKS:
        for implementation in getattr(plugins.manager.hook, hook).get_hookimpls():
            plugin = implementation.plugin_name
            plugins.observers.add(plugin)
            provided.setdefault(plugin, {})["observers"] = [plugin]
    plugins.listing = [
        Listing(name, distributions[name], provided.get(name, {}))
        for name, _ in plugins.manager.list_name_plugin()
    ]


def _values(plugins: Plugins, plugin: str, hook: str, values: Any) -> list[Any]:
    try:
        return list(values or ())
    except (Exception, SystemExit) as error:  # a generator of a plugin may raise anything
        plugins.problems.append(Problem(plugin, f"{hook} failed: {reason(error)}"))
        return []


def _reject_unknown_hooks(module: Any) -> None:
    known = {name for name in vars(hookspecs) if name.startswith("automl_tl_")}
    for name in vars(module):
        if name.startswith("automl_tl_") and name not in known and callable(vars(module)[name]):
            raise PluginError(unknown("hook", name, known))
