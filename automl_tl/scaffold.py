"""Writes a new plugin: a whole distribution that works as it stands, from templates."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import UsageError
from automl_tl.files import written_aside
from automl_tl.plugins import get_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("backbone", "backend", "dataset", "observer", "engine")
FRAMEWORKS = ("torch", "keras")
PREFIX = "automl-tl-"
"""Left out of what people type, when a distribution's name begins with it."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 40
_BACKEND = ("__init__", "backend", "model", "network", "onnx_export", "pixels", "plugin", "train")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """A plugin that was written.

    Attributes:
        path: Its folder.
        kind: What it adds, one of ``KINDS``.
        plugin: Name of its entry point, and of what it adds.
        key: What it adds, as people type it: ``torch/NAME`` for a backbone, else the name.
        module: The Python file or package with its code, below ``path``.
        files: All files below ``path``, sorted.
    """

    path: Path
    kind: str
    plugin: str
    key: str
    module: str
    files: tuple[str, ...]


def new_plugin(
    name: str,
    kind: str = "backbone",
    framework: str | None = None,
    folder: str | Path = ".",
) -> Scaffold:
    """Write a plugin into a new folder, aside and renamed.

    Args:
        name: Of the distribution and of its folder; what it adds is called the same.
        kind: What it adds, one of ``KINDS``.
        framework: Of a backbone, one of ``FRAMEWORKS``; torch by default.
        folder: An existing folder, in which the new one is made.

    Raises:
        UsageError: When an argument is wrong, the new folder exists already, or it cannot be
            written; nothing is left behind then.
    """
    _check_choice("--kind", kind, KINDS)
    if framework is not None:
        _check_choice("--framework", framework, FRAMEWORKS)
        if kind != "backbone":
            raise UsageError(f"Expected --framework with --kind backbone, got --kind {kind}.")
    framework = framework or "torch"
    module, plugin = _module(name), name.removeprefix(PREFIX)
    key = f"{framework}/{plugin}" if kind == "backbone" else plugin
    place = _place(Path(folder).expanduser(), name)
    _check_free(module, plugin, key, kind)
    facts = {
        "name": name,
        "module": module,
        "plugin": plugin,
        "key": key,
        "kind": kind,
        "framework": framework,
        "class": "".join(part.capitalize() for part in re.split("[-_]", plugin)),
    }
    texts = _render(_templates(kind, framework, module), facts)
    _write(place, texts)
    code = module if kind == "backend" else f"{module}.py"
    return Scaffold(place, kind, plugin, key, code, tuple(sorted(texts)))


def _templates(kind: str, framework: str, module: str) -> dict[str, str]:
    """Return the template of every file to write."""
    code = {f"{module}.py": f"{kind}.py.j2"}
    if kind == "backbone":
        code = {f"{module}.py": f"{kind}_{framework}.py.j2"}
    elif kind == "backend":
        code = {f"{module}/{part}.py": f"backend/{part}.py.j2" for part in _BACKEND}
    return {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"tests/test_{module}.py": "test.py.j2",
        **code,
    }


def _render(templates: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, str]:
    import jinja2

    folder = importlib.resources.files("automl_tl") / "templates" / "plugin"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return {
        file: environment.get_template(template).render(**facts)
        for file, template in templates.items()
    }


def _write(place: Path, texts: Mapping[str, str]) -> None:
    try:
        with written_aside(place) as aside:
            for file, text in texts.items():
                path = aside / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(
            f"The plugin cannot be written to {place} ({error.strerror}): choose another folder "
            "with -o."
        ) from None


def _module(name: str) -> str:
    """Return the name of a distribution's module.

    Raises:
        UsageError: When it is no good name of a distribution, a module and a folder.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        better = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")
        hint = f"; try {better[:_LONGEST].rstrip('_')}" if better else ""
        raise UsageError(
            f"Expected a name of at most {_LONGEST} small letters, digits, - and _ that begins "
            f"with a letter, got {name!r}{hint}."
        )
    module = name.replace("-", "_")
    if name == PREFIX.rstrip("-") or keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise UsageError(f"Expected a name that Python can import, got {name!r}; choose another.")
    return module


def _check_free(module: str, plugin: str, key: str, kind: str) -> None:
    """Raise ``UsageError`` when something that is installed is called the same."""
    found = importlib.util.find_spec(module)
    plugins = get_plugins()
    listed = {one.name: one.distribution for one in plugins.listing}
    tables: dict[str, Mapping[str, Any]] = {
        "backbone": plugins.backbones,
        "backend": plugins.backends,
        "dataset": plugins.datasets,
        "engine": plugins.engines,
    }
    if module in sys.stdlib_module_names or (found and found.origin):
        taken = f"the Python module {module}"
    elif plugin in listed:
        taken = f"the plugin {plugin} of {listed[plugin]}"
    elif key in tables.get(kind, ()):
        taken = f"the {kind} {key}"
    else:
        return
    raise UsageError(f"Expected a new name, but there is {taken} already; choose another.")


def _place(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UsageError(f"-o {folder}: expected an existing folder to write the plugin into.")
    place = folder / name
    if os.path.lexists(place):
        raise UsageError(
            f"Expected to make the folder {place}, but it is there already; choose another name, "
            "or another folder with -o."
        )
    return place


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        named = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UsageError(f"Expected {option} {named}, got {value!r}.")
