"""Files of Hugging Face repositories, in the cache that ``huggingface_hub`` keeps.

The package is needed to download only. Where a file lies is read from the cache's layout, which
its documentation gives, so that a list of a thousand networks stays instant.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError

from automl_tl.downloads import ask, in_background
from automl_tl.errors import UsageError, WeightsError
from automl_tl.specs import HubFile

if TYPE_CHECKING:
    import threading

    from automl_tl.stages import Stage

PREFIX = "hf://"
_TIMEOUT = 10.0
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([^@\s]+))?(?:@(\S+))?")


def parse(address: str) -> HubFile:
    """Read ``hf://ORGANIZATION/REPOSITORY[/FILE][@REVISION]``.

    Raises:
        UsageError: For anything else.
        PluginError: For a file that is not safetensors.
    """
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise UsageError(
            f"expected hf://ORGANIZATION/REPOSITORY[/FILE][@REVISION], got {address!r}."
        )
    names = ("repo", "file", "revision")
    given = {name: text for name, text in zip(names, match.groups(), strict=True) if text}
    return HubFile(**given)


def location(file: HubFile) -> Path:
    """Return where the cache has a file, or would have it once downloaded."""
    repo = cache_folder() / f"models--{file.repo.replace('/', '--')}"
    commit = file.revision
    with suppress(OSError):
        commit = (repo / "refs" / file.revision).read_text(encoding="utf-8").strip()
    return repo / "snapshots" / commit / file.file


def cache_folder() -> Path:
    """Return the cache's folder, by the variables that ``huggingface_hub`` reads."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface"
    )
    folder = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(folder)).expanduser()


def download(file: HubFile, stage: Stage, until: float) -> Path:
    """Fetch a file unless it is in the cache; returns its path there.

    Args:
        file: The file.
        stage: Told how many bytes are here.
        until: ``time.monotonic()`` at which it is given up.

    Raises:
        WeightsError: When ``huggingface_hub`` is not installed, in words that fit into a sentence.
        Exception: Whatever it raises; ``TimeoutError`` when the time is up.
    """
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise WeightsError("huggingface_hub is missing: install automl-tl[hub]") from None
    disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT
    folder = cache_folder()
    blobs = folder / f"models--{file.repo.replace('/', '--')}" / "blobs"

    def work(_: threading.Event) -> Path:
        _reach(endpoint)
        return Path(
            huggingface_hub.hf_hub_download(
                file.repo,
                file.file,
                revision=file.revision,
                cache_dir=folder,
                endpoint=endpoint,
            )
        )

    def measure() -> tuple[str, int, int]:
        sizes = [0]
        for path in blobs.glob("*.incomplete"):
            with suppress(OSError):
                sizes.append(path.stat().st_size)
        return f"downloading {file.repo}/{file.file}", max(sizes), 0

    return in_background(work, measure, stage, until)


def _reach(endpoint: str) -> None:
    """Raise ``OSError`` at once where ``huggingface_hub`` would try again for half a minute."""
    with suppress(HTTPError), ask(endpoint, "HEAD", _TIMEOUT):
        pass
