"""The process that a plugin is examined in: imports it, calls its hooks, and says what came.

``automl_tl.testing.examination`` starts it. It says what it is about to do before it does it, so
that a hook that hangs or ends the process is known by name.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from automl_tl import hookspecs, installed, settings
from automl_tl.errors import AutoMLError
from automl_tl.ipc import parent_channel
from automl_tl.specs import Backbone
from automl_tl.testing.examination import OTHERS, VALUES, Announced, Hook
from automl_tl.testing.findings import reason
from automl_tl.testing.installed import entry_points, files, load

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[dict[str, Any]], None]

FRAMEWORKS = (
    "flax jax keras keras_hub lightning mlflow mxnet onnxruntime optuna paddle ray sklearn "
    "tensorboard tensorflow timm torch torchvision transformers"
).split()
"""What takes too long to import for ``automl-tl --help`` and every other start."""
PREFIX = f"{hookspecs.PROJECT}_"
MARK = f"{hookspecs.PROJECT}_impl"
SPACE = "automl_tl_search_space"


def examine(name: str, tell: Tell) -> None:
    """Examine the plugin of an entry point, step by step.

    Args:
        name: Of the entry point.
        tell: Told attributes of ``Examination``, and before every step its name.
    """
    tell({"step": "import"})
    try:
        plugin = load(name)
    except BaseException as error:  # a plugin may raise anything, SystemExit too
        tell({"errors": {"import": reason(error)}, "frameworks": {"import": _frameworks()}})
        tell({"step": None})
        return
    hooks = [_hook(plugin, found) for found in dir(plugin) if _is_hook(plugin, found)]
    tell({"errors": {"import": None}, "frameworks": {"import": _frameworks()}, "hooks": hooks})
    works = {hook.name for hook in hooks if hook.marked and hook.fits}
    backbones: list[Backbone] = []
    for hook in (hook for hook in VALUES if hook in works):
        tell({"step": hook})
        values, wrong = _call(getattr(plugin, hook))
        backbones += [value for value in values if isinstance(value, Backbone)]
        announced = [_announced(hook, value) for value in values]
        tell({"errors": {hook: wrong}, "announced": announced})
    if SPACE in works:
        tell({"step": SPACE})
        tell({"spaces": _spaces(getattr(plugin, SPACE), backbones)})
    tell({"step": "hooks", "frameworks": {"hooks": _frameworks()}})
    tell({"step": OTHERS})
    tell({"taken": _taken(name)})
    tell({"step": None})


def _is_hook(plugin: Any, name: str) -> bool:
    value = getattr(plugin, name, None)
    return callable(value) and (name.startswith(PREFIX) or hasattr(value, MARK))


def _hook(plugin: Any, name: str) -> Hook:
    """Return what is known of a hook without calling it."""
    function = getattr(plugin, name)
    spec = getattr(hookspecs, name, None) if name.startswith(PREFIX) else None
    allowed = tuple(inspect.signature(spec).parameters) if spec else None
    given = list(inspect.signature(function).parameters.values())
    named = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = {p.name for p in named if p.default is p.empty}
    return Hook(
        name,
        marked=hasattr(function, MARK),
        arguments=tuple(p.name for p in given),
        allowed=allowed,
        fits=allowed is not None
        and needed <= set(allowed)
        and len(named) == len(given)
        and not inspect.iscoroutinefunction(function),
    )


def _call(function: Callable[..., Any]) -> tuple[list[Any], str | None]:
    """Call a hook and go through what it returns, perhaps a generator; nothing it raises passes."""
    values: list[Any] = []
    try:
        values.extend(function() or ())
    except BaseException as error:  # a hook may raise anything, SystemExit too
        return values, reason(error)
    return values, None


def _announced(hook: str, value: Any) -> Announced:
    right = isinstance(value, VALUES[hook])
    name = (value.key if isinstance(value, Backbone) else value.name) if right else None
    return Announced(hook, name, repr(value)[:80])


def _spaces(function: Callable[..., Any], own: list[Backbone]) -> dict[str, str | None]:
    """Return what is wrong with what the hook says of each backbone, and of a stranger's."""
    stranger = Backbone("any", "strange", lambda weights: None, 224, 1_000_000)
    needs = list(inspect.signature(function).parameters)
    found: dict[str, str | None] = {}
    for backbone in (*own, stranger):
        found[backbone.key] = None
        try:
            for name, value in (function(*(backbone for _ in needs)) or {}).items():
                settings.domain(name, value)
        except AutoMLError as error:
            found[backbone.key] = str(error)
        except BaseException as error:
            found[backbone.key] = reason(error)
    return found


def _taken(name: str) -> dict[str, str]:
    """Return what every other plugin announces, and which plugin does."""
    found: dict[str, str] = {}
    for other in sorted({installed.BUILTIN, *entry_points(), *files()} - {name}):
        try:
            plugin = load(other)
        except BaseException:  # its own examination says what is wrong with it
            continue
        for hook in VALUES:
            values = _call(getattr(plugin, hook))[0] if hasattr(plugin, hook) else []
            for one in (_announced(hook, value) for value in values):
                if one.name is not None:
                    found.setdefault(f"{hook.removeprefix(PREFIX)} {one.name}", other)
    return found


def _frameworks() -> list[str]:
    return [name for name in FRAMEWORKS if name in sys.modules]


if __name__ == "__main__":
    examine(sys.argv[1], parent_channel().send)
