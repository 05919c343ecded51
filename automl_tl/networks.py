"""The networks of a study: which weights, at which size, on which pixels."""

from __future__ import annotations

import hashlib
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl import own_code
from automl_tl.errors import UsageError, WeightsError
from automl_tl.installed import package_version
from automl_tl.plugins import get_plugins
from automl_tl.stages import silent
from automl_tl.types import Cut, Layer, NetworkInfo, NetworkSpec
from automl_tl.weights import at_address, fetch, is_address, location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from automl_tl.cache.store import Store
    from automl_tl.host import BackendHost
    from automl_tl.space import Space, TrialSpec
    from automl_tl.specs import Backbone
    from automl_tl.stages import Stage


_NAMED = 3
"""Backbones of a person's own patterns that are refused in a sentence each."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Everything a worker needs to turn a trial into arrays and a network.

    Attributes:
        specs: A network for every backbone and image size.
        arrays: Path and identity of the pixel array for every image size and resize rule.
    """

    specs: Mapping[tuple[str, int], NetworkSpec]
    arrays: Mapping[tuple[int, str], tuple[Path, str]]

    def network(self, spec: TrialSpec) -> NetworkSpec:
        """Return a trial's network."""
        return self.specs[spec.backbone, self._size(spec)]

    def pixels(self, spec: TrialSpec) -> tuple[Path, str]:
        """Return path and identity of a trial's pixel array."""
        return self.arrays[self._size(spec), spec.resize]

    def _size(self, spec: TrialSpec) -> int:
        return spec.image_size or get_plugins().backbone(spec.backbone).input_size


def image_sizes(space: Space, backbone: Backbone) -> list[int]:
    """Return the image sizes that a study uses with a backbone.

    Raises:
        UsageError: For one that the backbone does not accept.
    """
    sizes = [int(s or backbone.input_size) for s in space.values("image_size", backbone.key)]
    for size in sizes:
        check_size(backbone, size)
    return sizes


def check_size(backbone: Backbone, size: int) -> None:
    """Raise ``UsageError`` unless a backbone accepts an image size."""
    if backbone.fixed_size and size != backbone.input_size:
        raise UsageError(
            f"image_size: {backbone.key} takes {backbone.input_size} pixels only, got {size}."
        )
    if size < backbone.min_size:
        raise UsageError(
            f"image_size: {backbone.key} needs at least {backbone.min_size} pixels, got {size}."
        )


def choose_backbones(
    patterns: Sequence[str],
    weights: Mapping[str, str],
    small_images: bool,
    tell: Callable[[str], None],
    deadline: float = float("inf"),
    stage: Stage = silent,
) -> dict[str, str]:
    """Choose a study's backbones and make sure that their weights are on this machine.

    Without patterns these are the recommended ones, and everything else whose weights lie here
    already; for images of at most 64 pixels a side, only the backbones made for those, where there
    are any. A backbone without weights is named and left out, unless a pattern is its very name and
    it was published without any: then it starts from random ones.

    Args:
        patterns: Globs of keys or names.
        weights: ``KEY`` or glob to ``none``, a published name, a path or an address.
        small_images: Whether the images are that small.
        tell: Receives one sentence for each backbone that is left out or starts at random.
        deadline: ``time.monotonic()`` of the search's end; downloads get half of the time until
            then, so that what is here can be searched.
        stage: Told how far a download is.

    Returns:
        The weights of every chosen backbone: a path, or ``none``.

    Raises:
        UsageError: When a pattern fits nothing.
        WeightsError: When a given file is missing, or nothing is left.
    """
    plugins = get_plugins()
    settings = {
        backbone.key: value
        for pattern, value in weights.items()
        for backbone in plugins.match(pattern)
    }
    if patterns:
        wanted = {b.key: b for pattern in patterns for b in plugins.match(pattern)}
        for key, backbone in wanted.items():
            named = {key, backbone.name} & set(patterns)
            if named and backbone.pretrained is None and key not in settings:
                settings[key] = "none"
                tell(
                    f"{key} was published without weights, so it starts from random ones; "
                    f"--weights {key}=PATH gives it others."
                )
    else:
        wanted = _default_backbones(plugins.backbones, settings, small_images)
    refused: dict[str, str] = {}
    now = time.monotonic()
    until = now + (deadline - now) / 2
    chosen = _available(wanted, settings, refused, until, stage)
    if not chosen and not patterns:
        shipped = {k: b for k, b in plugins.backbones.items() if k not in wanted and cached(b)}
        chosen = _available(shipped, settings, refused, until, stage)
        if chosen:
            tell(f"Only {', '.join(chosen)} is left, which suits images of at most 64 pixels.")
    if chosen and len(refused) > (_NAMED if patterns else 1):
        tell(_left_out([plugins.backbones[key] for key in refused]))
    elif chosen:
        for sentence in refused.values():
            tell(f"{sentence} The search goes on without it.")
    if not chosen:
        if not refused:
            raise UsageError("No backbone is installed: install a plugin, such as automl-tl-torch.")
        raise WeightsError(next(iter(refused.values())))
    return chosen


def network_spec(
    backbone: Backbone, weights: str, image_size: int, seed: int, store: Store
) -> NetworkSpec:
    """Return a network's spec, with the identity of its weights.

    Raises:
        WeightsError: When the weights file has gone, or is none.
    """
    if weights == "none":
        return NetworkSpec(backbone.key, image_size, None, f"random:{seed}", seed)
    path = Path(weights)
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise WeightsError(
                f"{backbone.key}: expected a weights file, got the folder or device {path}: put "
                "the file there."
            )
        key = {
            "path": str(path),
            "size": facts.st_size,
            "mtime": facts.st_mtime_ns,  # which `cp -p` and reproducible images keep
            "ctime": facts.st_ctime_ns,
            "inode": facts.st_ino,
        }
        digest = store.remember("weights", key, lambda: _sha256(path))
    except OSError as error:
        raise WeightsError(
            f"{backbone.key}: the weights file {path} cannot be read ({error.strerror})."
        ) from None
    return NetworkSpec(backbone.key, image_size, path, digest, seed)


def describe(network: NetworkSpec, host: BackendHost, store: Store) -> NetworkInfo:
    """Return a network's layers and cut points.

    The backend is asked the first time only, and again once a file of a person's own code that the
    network was made with has changed. The files are a part of the network's version.
    """
    spec = get_plugins().backend(host.name)
    versions = {package: package_version(package) for package in (*spec.packages, "automl-tl")}
    provider = get_plugins().provider(network.backbone)
    key = {
        "backbone": network.backbone,
        "provider": provider,
        "size": network.image_size,
        "versions": versions,
    }

    def ask() -> dict[str, Any]:
        return {**asdict(host.describe(network)), "own_code": host.own_code()}

    def current(facts: Mapping[str, Any]) -> bool:
        return "own_code" in facts and own_code.unchanged(facts["own_code"])

    return _network_info(store.remember("networks", key, ask, current))


def input_id(pixels_id: str, key: str) -> str:
    """Return the identity of what a backbone sees: pixels, how it scales them, and its code."""
    plugins = get_plugins()
    return f"{pixels_id}/{plugins.backbone(key).preprocess}/{plugins.provider(key)}"


def _network_info(facts: Mapping[str, Any]) -> NetworkInfo:
    return NetworkInfo(
        layers=tuple(Layer(**layer) for layer in facts["layers"]),
        cuts=tuple(Cut(cut["index"], tuple(cut["shape"]), cut["flops"]) for cut in facts["cuts"]),
        features=facts["features"],
        version=" ".join(filter(None, (facts["version"], own_code.identity(facts["own_code"])))),
    )


def _available(
    wanted: Mapping[str, Backbone],
    settings: Mapping[str, str],
    refused: dict[str, str],
    until: float,
    stage: Stage,
) -> dict[str, str]:
    """Return the weights of the backbones that have any; the sentences go to ``refused``."""
    chosen: dict[str, str] = {}
    for key, backbone in sorted(wanted.items()):
        try:
            chosen[key] = weights_file(backbone, settings.get(key), until, stage)
        except WeightsError as error:
            if settings.get(key):
                raise
            refused[key] = str(error)
    return chosen


def _left_out(backbones: Sequence[Backbone]) -> str:
    """Name the weights files that are missing, in one sentence."""
    published = {b.key: b.pretrained for b in backbones if b.pretrained}
    files = ", ".join(
        f"{key} ({weights.hub or location(weights).name})" for key, weights in published.items()
    )
    folders = sorted({str(location(w).parent) for w in published.values() if not w.hub})
    put = f"put these files into {' or '.join(folders)}, or " if folders else ""
    return (
        f"{len(backbones)} of the backbones are left out, because their weights are not here "
        f"and cannot be downloaded: {files}; {put}give them with --weights KEY=PATH."
    )


def _default_backbones(
    known: Mapping[str, Backbone], settings: Mapping[str, str], small_images: bool
) -> dict[str, Backbone]:
    if small_images:
        small = {key: backbone for key, backbone in known.items() if backbone.small_images}
        if small:
            return small
    chosen = {
        key: backbone
        for key, backbone in known.items()
        if not backbone.small_images
        and (backbone.recommended or key in settings or cached(backbone))
    }
    return chosen or dict(known)


def cached(backbone: Backbone) -> bool:
    """Whether a backbone's published weights lie on this machine."""
    return backbone.pretrained is not None and location(backbone.pretrained).is_file()


def weights_file(
    backbone: Backbone,
    setting: str | None,
    until: float = float("inf"),
    stage: Stage = silent,
) -> str:
    """Return the path of a backbone's weights, downloaded when they are missing, or ``none``.

    Args:
        backbone: The backbone.
        setting: ``none``, the published name, a path or an address; None for the published
            weights.
        until: ``time.monotonic()`` at which a download is given up.
        stage: Told how far a download is.

    Raises:
        WeightsError: When there are none.
    """
    if setting == "none":
        return "none"
    published = backbone.pretrained
    if setting and is_address(setting):
        published = at_address(setting, backbone.key)
    elif setting and (published is None or setting != published.name):
        path = Path(setting).expanduser()
        if not path.is_file():
            names = f"{published.name}, none" if published else "none"
            raise WeightsError(
                f"--weights {backbone.key}: expected {names} or a file, got {setting!r}, which "
                "does not exist."
            )
        return str(path.absolute())
    if published is None:
        raise WeightsError(
            f"{backbone.key} has no published weights: give a file or none with "
            f"--weights {backbone.key}=PATH."
        )
    return str(fetch(backbone, published, until, stage))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
