"""Facts about this machine and installation, for ``automl-tl doctor``.

Frameworks are asked in child processes with a time limit, so that a broken driver cannot hang or
crash the command.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from automl_tl.cache import contents
from automl_tl.cache.store import Store
from automl_tl.errors import AutoMLError
from automl_tl.host import BackendHost
from automl_tl.machine import available_cpus, memory
from automl_tl.plugins import get_plugins
from automl_tl.weights import location

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.installed import Plugins
    from automl_tl.specs import BackendSpec, PretrainedWeights

TIMEOUT = 120.0
"""Seconds that a backend gets to import its framework and list its devices."""


def examine(timeout: float = TIMEOUT) -> dict[str, Any]:
    """Collect everything worth knowing.

    Args:
        timeout: Seconds for each backend.

    Returns:
        JSON-ready: ``automl_tl``, ``python``, ``system``, ``gpus``, ``cache``, ``backends``,
        ``plugins``, ``weights`` (those that lie on this disk), ``problems`` (sentences).
    """
    plugins = get_plugins()
    backends = [_backend(spec, timeout) for _, spec in sorted(plugins.backends.items())]
    problems = [f"plugin {problem.plugin}: {problem.message}" for problem in plugins.problems]
    problems += [f"backend {b['name']}: {b['problem']}" for b in backends if b["problem"]]
    if not backends:
        problems.append("no backend is installed; install one, such as automl-tl-torch.")
    return {
        "automl_tl": importlib.metadata.version("automl-tl"),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "system": _system(),
        "gpus": gpus(),
        "cache": _cache(),
        "backends": backends,
        "plugins": listing(plugins),
        "weights": cached_weights(plugins),
        "problems": problems,
    }


def listing(plugins: Plugins) -> list[dict[str, Any]]:
    """Return the plugins: ``name``, ``distribution``, ``provides`` and their ``problems``."""
    loaded = {
        entry.name: {
            "name": entry.name,
            "distribution": entry.distribution,
            "provides": {kind: list(names) for kind, names in entry.provides.items()},
            "problems": [],
        }
        for entry in plugins.listing
    }
    for problem in plugins.problems:
        broken: dict[str, Any] = {
            "name": problem.plugin,
            "distribution": None,
            "provides": {},
            "problems": [],
        }
        row: dict[str, Any] = loaded.setdefault(problem.plugin, broken)
        row["problems"].append(problem.message)
    return list(loaded.values())


def weights_state(plugins: Plugins, key: str) -> tuple[str, Path | None]:
    """Say where a backbone's published weights are.

    Returns:
        ``shipped`` or ``cached`` and the file, ``download`` and where it would go, or ``none``.
    """
    return _state(plugins.backbones[key].pretrained)


def _state(published: PretrainedWeights | None) -> tuple[str, Path | None]:
    if published is None:
        return "none", None
    try:
        path = location(published)
        there = path.is_file()
    except Exception:  # a plugin may raise anything
        return "unknown", None
    if published.source is None:
        return ("shipped" if there else "missing"), path
    return ("cached" if there else "download"), path


def cached_weights(plugins: Plugins) -> list[dict[str, Any]]:
    """Return the published weights that lie on this disk.

    Returns:
        ``backbone``, ``classifier`` (whether the file is the one with the original classifier,
        which ``predict`` reads), ``path`` and ``bytes`` of each file.
    """
    found = []
    for key, backbone in sorted(plugins.backbones.items()):
        for classifier, published in ((False, backbone.pretrained), (True, backbone.classifier)):
            state, path = _state(published)
            if path is not None and state in ("cached", "shipped"):
                facts = {"path": str(path), "bytes": path.stat().st_size}
                found.append({"backbone": key, "classifier": classifier, **facts})
    return found


def gpus() -> list[dict[str, str]]:
    """Return what ``nvidia-smi`` says: ``name``, ``memory`` and ``driver`` of each GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [
        dict(zip(("name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == 3
    ]


def _system() -> dict[str, Any]:
    granted = memory()
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": available_cpus(),
        "memory_bytes": granted.total,
        "memory_available_bytes": granted.available,
    }


def _cache() -> dict[str, Any]:
    store = Store()
    usage = contents.usage(store.root)
    existing = next(p for p in (store.root, *store.root.parents) if p.exists())
    return {
        "path": str(store.root),
        "entries": sum(row["entries"] for row in usage),
        "bytes": sum(row["bytes"] for row in usage),
        "max_bytes": store.max_bytes,
        "disk_free_bytes": shutil.disk_usage(existing).free,
        "writable": os.access(existing, os.W_OK),
    }


def _backend(spec: BackendSpec, timeout: float) -> dict[str, Any]:
    versions = {package: _version(package) for package in spec.packages}
    missing = [package for package, version in versions.items() if version is None]
    devices: list[str] = []
    if missing:
        problem = f"{', '.join(missing)} is not installed."
    else:
        devices, problem = _devices(spec.name, timeout)
    return {
        "name": spec.name,
        "packages": versions,
        "formats": dict(spec.formats),
        "devices": devices,
        "problem": problem,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(backend: str, timeout: float) -> tuple[list[str], str]:
    """Return the devices of a backend, and what went wrong."""
    devices: list[str] = []
    problems: list[str] = []
    host = BackendHost(backend, threads=1)

    def ask() -> None:
        try:
            devices.extend(host.devices())
        except AutoMLError as error:
            problems.append(str(error))
        except Exception as error:  # closing the host under it may raise anything
            problems.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    late = thread.is_alive()
    host.close()
    if late:
        return [], f"did not answer within {timeout:.0f} s."
    return devices, problems[0] if problems else ""
