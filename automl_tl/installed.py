"""Everything that plugins provide, by name. ``plugins`` finds it."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from automl_tl import plugin_files
from automl_tl.errors import AutoMLError, PluginError, UsageError
from automl_tl.settings import domain
from automl_tl.specs import FinishedEpoch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pluggy

    from automl_tl.specs import Backbone, BackendSpec, DatasetSpec, EngineSpec, FinishedTrial

BUILTIN = "automl-tl"
_SPACE = "automl_tl_search_space"
OBSERVER_HOOKS = ("automl_tl_epoch_finished", "automl_tl_trial_finished")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a plugin.

    Attributes:
        plugin: Its name.
        message: One sentence.
    """

    plugin: str
    message: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One loaded plugin.

    Attributes:
        name: Its entry point's name, or that of its file, without ``.py``.
        distribution: Name and version of the distribution it comes from, or the path of its file.
        provides: Names it provides, a kind (``backbones``, ``backends``, ...).
    """

    name: str
    distribution: str
    provides: Mapping[str, list[str]]


@dataclass(slots=True)
class Plugins:
    """Everything that is installed. Treat it as read-only."""

    manager: pluggy.PluginManager
    backbones: dict[str, Backbone] = field(default_factory=dict)
    backends: dict[str, BackendSpec] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    engines: dict[str, EngineSpec] = field(default_factory=dict)
    observers: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    listing: list[Listing] = field(default_factory=list)
    _identities: dict[str, str] = field(default_factory=dict)

    def backbone(self, key: str) -> Backbone:
        """Return a backbone by its key.

        Raises:
            UsageError: When there is none; it names what comes close.
        """
        if key not in self.backbones:
            raise self._missing("backbone", key, self.backbones)
        return self.backbones[key]

    def backend(self, name: str) -> BackendSpec:
        """Return a backend by name, or raise ``UsageError``."""
        if name not in self.backends:
            raise self._missing("backend", name, self.backends)
        return self.backends[name]

    def engine(self, name: str, options: Mapping[str, Any] | None = None) -> EngineSpec:
        """Return an engine by name.

        Raises:
            UsageError: When there is none, or it takes no such options.
            AutoMLError: When it cannot start workers with these.
        """
        if name not in self.engines:
            raise self._missing("engine", name, self.engines, _installed_by(name))
        for option in options or ():
            if option not in self.engines[name].options:
                able = [spec.name for spec in self.engines.values() if option in spec.options]
                raise UsageError(
                    f"The engine {name} takes no --{option.replace('_', '-')}: "
                    f"{f'--engine {able[0]} does' if able else 'leave it out'}."
                )
        if options is not None and (check := self.engines[name].check):
            check(options)
        return self.engines[name]

    def observer(self, name: str) -> str:
        """Return the name of an observer, or raise ``UsageError`` when there is none."""
        if name not in self.observers:
            raise self._missing("observer", name, self.observers, _installed_by(name))
        return name

    def provider(self, key: str) -> str:
        """Return what a backbone's numbers depend on, beside its backend.

        These are the distribution that provides it, a hash of its code, because what an edited
        plugin computed before is not what it computes now, and the packages that it names.
        """
        packages = self.backbones[key].packages if key in self.backbones else ()
        versions = (f"{name} {package_version(name)}" for name in packages)
        for one in self.listing:
            if key in one.provides.get("backbones", ()):
                if one.name not in self._identities:
                    code = plugin_files.code_hash(self.manager.get_plugin(one.name))
                    self._identities[one.name] = f"{one.distribution} {code}"
                return " ".join((self._identities[one.name], *versions))
        return "unknown"

    def match(self, pattern: str) -> list[Backbone]:
        """Return the backbones whose key or name fits a glob, sorted by key.

        Raises:
            UsageError: When none does.
        """
        found = [
            backbone
            for key, backbone in sorted(self.backbones.items())
            if fnmatch.fnmatchcase(key, pattern) or fnmatch.fnmatchcase(backbone.name, pattern)
        ]
        if not found:
            raise self._missing("backbone", pattern, self.backbones)
        return found

    def search_space(self, backbone: Backbone) -> tuple[dict[str, Any], list[Problem]]:
        """Return what plugins add to, or narrow in, a backbone's space; the last one wins.

        Returns:
            Settings that can be searched, and what is wrong with the plugins that are left out.
        """
        space: dict[str, Any] = {}
        problems: list[Problem] = []
        for plugin, narrowed in self.call(_SPACE, problems, backbone=backbone):
            try:
                space.update(_settings(narrowed))
            except Exception as error:  # a mapping of a plugin may raise anything
                wrong = error if isinstance(error, AutoMLError) else reason(error)
                problems.append(Problem(plugin, f"left out: {_SPACE} returned {wrong}"))
        return space, problems

    def tell(self, observer: str, event: FinishedEpoch | FinishedTrial) -> Problem | None:
        """Tell one observer what happened; returns what went wrong in it."""
        hook = OBSERVER_HOOKS[0 if isinstance(event, FinishedEpoch) else 1]
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == observer:
                try:
                    implementation.function(*(event for _ in implementation.argnames))
                except Exception as error:  # a plugin may raise anything
                    return Problem(observer, f"{hook} failed: {reason(error)}")
        return None

    def _missing(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
        """Return the error for an unknown name; a broken plugin may be why."""
        broken = [f"plugin {one.plugin}: {one.message.rstrip('.')}" for one in self.problems[:3]]
        return UsageError(unknown(kind, name, known, "; ".join(broken)) + hint)

    def call(
        self, hook: str, problems: list[Problem], **arguments: Any
    ) -> Iterable[tuple[str, Any]]:
        """Call a hook plugin by plugin, so that one failure, added to problems, costs one."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            given = {key: arguments[key] for key in implementation.argnames}
            try:
                yield name, implementation.function(**given)
            except (Exception, SystemExit) as error:  # a plugin may raise anything
                problems.append(Problem(name, f"{hook} failed: {reason(error)}"))


@functools.cache
def package_version(package: str) -> str:
    """Return the version of an installed distribution, or ``unknown``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def unknown(kind: str, name: str, known: Iterable[str], note: str = "") -> str:
    """Return the sentence for an unknown name: what comes close, or what there is."""
    names = sorted(known)
    short = {candidate.rpartition("/")[2]: candidate for candidate in names}
    close = difflib.get_close_matches(name, names, 3, 0.6) or [
        short[match] for match in difflib.get_close_matches(name.rpartition("/")[2], short, 3, 0.6)
    ]
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {_some(names)}."
    return f"Unknown {kind} {name!r}{f' ({note})' if note else ''}: {hint}"


def _some(names: list[str]) -> str:
    if not names:
        return "none installed"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def reason(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def _installed_by(name: str) -> str:
    if name in importlib.metadata.metadata(BUILTIN).get_all("Provides-Extra", []):
        return f" `pip install '{BUILTIN}[{name}]'` installs it."
    return ""


def _settings(narrowed: Any) -> dict[str, Any]:
    """Return what a plugin says of a backbone's space, once all of it can be searched."""
    if narrowed is None:
        return {}
    if not isinstance(narrowed, Mapping):
        raise PluginError(f"{narrowed!r}, expected a mapping of parameters or None.")
    for name, value in narrowed.items():
        try:
            domain(name, value)
        except UsageError as error:
            raise PluginError(f"what cannot be searched: {error}") from None
    return dict(narrowed)
