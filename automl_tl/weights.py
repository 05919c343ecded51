"""Weights files: where they lie, and how they come to be there."""

from __future__ import annotations

import re
import time
import urllib.parse
from typing import TYPE_CHECKING

from automl_tl import hub
from automl_tl.cache.contents import DOWNLOADS, default_root
from automl_tl.downloads import from_url, reason
from automl_tl.errors import PluginError, UsageError, WeightsError
from automl_tl.specs import PretrainedWeights
from automl_tl.stages import silent

if TYPE_CHECKING:
    from pathlib import Path

    from automl_tl.specs import Backbone
    from automl_tl.stages import Stage

_CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{64})")


def location(weights: PretrainedWeights) -> Path:
    """Return where a weights file lies, or would lie once downloaded."""
    if weights.path is not None:
        return weights.path()
    if weights.hub is not None:
        return hub.location(weights.hub)
    file = urllib.parse.urlsplit(weights.url or "").path.rpartition("/")[2]
    return default_root() / DOWNLOADS / f"{(weights.sha256 or '')[:16]}-{file}"


def is_published(backbone: Backbone, file: str) -> bool:
    """Whether a study's weights are the published ones, not a person's own file or ``none``."""
    return backbone.pretrained is not None and file == str(location(backbone.pretrained))


def is_address(setting: str) -> bool:
    """Whether ``--weights`` names a place on the internet rather than a file."""
    return setting.startswith(("https://", "http://", hub.PREFIX))


def at_address(setting: str, key: str) -> PretrainedWeights:
    """Read ``https://HOST/FILE#sha256=DIGITS`` or ``hf://ORGANIZATION/REPOSITORY[...]``.

    Args:
        setting: What a person typed.
        key: Of the backbone, for the error.

    Raises:
        WeightsError: When it is neither.
    """
    try:
        if setting.startswith(hub.PREFIX):
            return PretrainedWeights(setting, hub=hub.parse(setting))
        url, _, fragment = setting.partition("#")
        checksum = _CHECKSUM.fullmatch(fragment)
        if not checksum:
            raise UsageError(
                f"expected an address that ends in #sha256= and 64 digits, got {setting!r}; "
                "sha256sum FILE prints them."
            )
        return PretrainedWeights(setting, url=url, sha256=checksum[1].lower())
    except (UsageError, PluginError) as error:
        raise WeightsError(f"--weights {key}: {error}") from None


def fetch(
    backbone: Backbone,
    weights: PretrainedWeights,
    until: float = float("inf"),
    stage: Stage = silent,
) -> Path:
    """Return the path of a weights file, which is downloaded when it is missing.

    Args:
        backbone: Whose weights they are, for messages.
        weights: The weights.
        until: ``time.monotonic()`` at which a download is given up.
        stage: Told how far a download is.

    Raises:
        WeightsError: When they cannot be had; names the backbone, the file and what to do.
    """
    path = location(weights)
    if path.is_file():
        return path
    try:
        if time.monotonic() >= until:
            raise TimeoutError
        if weights.hub is not None:
            return hub.download(weights.hub, stage, until)
        if weights.url is None:
            raise FileNotFoundError("it should have come with its plugin")
        return from_url(weights.url, path, _checksum(weights), stage, until)
    except Exception as error:  # huggingface_hub has many of its own
        if time.monotonic() >= until:
            raise WeightsError(
                f"{backbone.key}: the weights file {path} is missing and cannot be downloaded in "
                "half of the time: give more with --time."
            ) from None
        raise WeightsError(
            f"{backbone.key}: the weights file {path.name} is not in {path.parent} and cannot be "
            f"downloaded ({reason(error)}): put it there, or use --weights {backbone.key}=PATH or "
            "=none."
        ) from error


def _checksum(weights: PretrainedWeights) -> tuple[str, str] | None:
    if weights.sha256:
        return "sha256", weights.sha256
    return ("md5", weights.md5) if weights.md5 else None
