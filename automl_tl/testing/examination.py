"""What comes of importing a plugin and calling its hooks, in a process that may hang or die."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automl_tl.ipc import Child
from automl_tl.specs import Backbone, BackendSpec, DatasetSpec, EngineSpec
from automl_tl.testing.installed import distribution

SECONDS = 30.0
"""What an import or a hook gets. Both should take milliseconds."""

VALUES: dict[str, type] = {
    "automl_tl_backends": BackendSpec,
    "automl_tl_backbones": Backbone,
    "automl_tl_datasets": DatasetSpec,
    "automl_tl_engines": EngineSpec,
}
"""The hooks that announce something, and what they return."""

OTHERS = "the other plugins"
"""The step in which the names are read that are taken already."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of a plugin that is a hook, or seems meant to be one.

    Attributes:
        name: Of the function.
        marked: Whether it carries ``@hookimpl``.
        arguments: Names of its arguments.
        allowed: Those that the hook has; None when there is no such hook.
        fits: Whether it can be called with those.
    """

    name: str
    marked: bool
    arguments: tuple[str, ...]
    allowed: tuple[str, ...] | None
    fits: bool


@dataclass(frozen=True, slots=True)
class Announced:
    """A value that a hook returned.

    Attributes:
        hook: Which hook.
        name: What it announces; None when it is of a wrong type.
        text: The value as Python writes it.
    """

    hook: str
    name: str | None
    text: str


@dataclass(slots=True)
class Examination:
    """What came of examining a plugin.

    Attributes:
        plugin: Name of its entry point.
        distribution: Where it comes from.
        seconds: What each step got.
        step: The last step that began: ``import``, a hook's name, ...; None at the end.
        ending: Why it ended before its end.
        errors: What each step raised, None for nothing.
        frameworks: Frameworks that had been imported after each step that is asked for them.
        hooks: Its hooks.
        announced: What they announced.
        spaces: For each backbone, what is wrong with what the plugin says of its search space.
        taken: What other plugins announce, as ``backbones torch/resnet18``, and which plugin.
    """

    plugin: str
    distribution: str
    seconds: float
    step: str | None = "start"
    ending: str | None = None
    errors: dict[str, str | None] = field(default_factory=dict)
    frameworks: dict[str, list[str]] = field(default_factory=dict)
    hooks: list[Hook] = field(default_factory=list)
    announced: list[Announced] = field(default_factory=list)
    spaces: dict[str, str | None] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What findings call it."""
        return self.plugin

    @property
    def usable(self) -> bool:
        """Whether its hooks can be called in another process without hanging or ending it."""
        return self.ending is None or self.step == OTHERS

    def names(self, hook: str) -> list[str]:
        """Return the names that a hook announced."""
        return [one.name for one in self.announced if one.hook == hook and one.name is not None]

    def learn(self, message: dict[str, Any]) -> None:
        """Take in what the process says: attributes and their values, or parts of them."""
        for name, value in message.items():
            held = getattr(self, name)
            if isinstance(held, dict):
                held.update(value)
            elif isinstance(held, list):
                held.extend(value)
            else:
                setattr(self, name, value)


def examine(plugin: str, seconds: float = SECONDS, log: Path | None = None) -> Examination:
    """Import a plugin and call its hooks in a process of its own.

    Args:
        plugin: Name of its entry point.
        seconds: For each step, the start of Python not among them.
        log: File for what the plugin prints; None for nowhere.

    Raises:
        UsageError: When there is no such plugin.
    """
    result = Examination(plugin, distribution(plugin), seconds)
    with tempfile.TemporaryDirectory(prefix="automl-tl-check-") as folder:
        child = Child(
            "automl_tl.testing.examiner", [plugin], log=log or Path(folder) / "printed.log"
        )
        try:
            while result.step is not None:
                starting = result.step == "start"
                result.learn(child.channel.receive(60.0 if starting else seconds))
        except TimeoutError:
            result.ending = f"no end after {seconds:g} s"
        except EOFError:
            result.ending = f"the end of the process ({child.ending()})"
        finally:
            child.close(0)
    return result
