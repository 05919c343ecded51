"""Installs a plugin that ``scaffold`` wrote, without a network: its code and its metadata."""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.scaffold import Scaffold


def install(made: Scaffold, site: Path) -> None:
    """Put a plugin into a folder that is then to be on Python's path."""
    project = tomllib.loads((made.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    code = made.path / made.module
    if code.is_dir():
        shutil.copytree(code, site / made.module)
    else:
        site.mkdir(parents=True, exist_ok=True)
        shutil.copy(code, site)
    meta = site / f"{name.replace('-', '_')}-{version}.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    ((group, entries),) = project["entry-points"].items()
    lines = [f"{entry} = {target}\n" for entry, target in entries.items()]
    (meta / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")
