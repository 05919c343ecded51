"""Which plugin files a study needs. They are named, never loaded: the study may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl import plugin_files
from automl_tl.errors import UsageError
from automl_tl.plugins import get_plugins

if TYPE_CHECKING:
    from automl_tl.study_config import Config


def missing_files(config: Config) -> str | None:
    """Say which plugin files a study needs; None when nothing is missing."""
    if not config.plugins or all(key in get_plugins().backbones for key in config.backbones):
        return None
    unknown = next(key for key in config.backbones if key not in get_plugins().backbones)
    return (
        f"The study was searched with {unknown}, which is not installed here: it came from a "
        f"plugin file, so add{plugin_files.flags(config.plugins)} if you trust that code."
    )


def check_files(config: Config) -> None:
    """Raise ``UsageError`` unless the plugin files that a study needs are loaded."""
    if sentence := missing_files(config):
        raise UsageError(sentence)
