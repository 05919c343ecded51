"""Weights files: where torch.hub keeps them, and loading them without unpickling."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def checkpoint_path(file: str) -> Path:
    """Return where torch.hub keeps a weights file, whether it is there or not.

    Follows ``TORCH_HOME`` and ``XDG_CACHE_HOME`` as ``torch.hub`` does, without importing torch.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / file


def load_into(network: nn.Module, path: Path, key: str, classifier: bool = False) -> None:
    """Load a weights file into a network.

    The file is a state dict, written by ``torch.save`` or as safetensors, possibly wrapped in
    ``{"state_dict": ...}`` and with ``module.`` before every name. The classifier (the last child
    with parameters) and auxiliary classifiers may be missing or of another width.

    Args:
        network: Changed in place.
        path: The file; told apart by its content, not by its suffix.
        key: Of the backbone, for messages.
        classifier: The classifier must be there too, as wide as the network's.

    Raises:
        WeightsError: When the file is absent, needs code to be loaded, is no weights file, or
            belongs to another network.
    """
    state = _plain(_read(path, key), network, path, key)
    own = network.state_dict()
    spare = _AUXILIARY if classifier else _spare_prefixes(network)
    for name in list(state):
        if name.startswith(spare) and (name not in own or state[name].shape != own[name].shape):
            del state[name]
    # Shapes are compared by torch, after the network's own conversions of old files.
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sizes = [line for line in lines if line.startswith("size mismatch")]
        what = f"{len(sizes)} tensors have another shape ({sizes[0]})" if sizes else lines[0]
        raise _foreign(path, key, what.rstrip(".")) from error
    missing = [n for n in missing if not n.startswith(spare) and "num_batches_tracked" not in n]
    if missing or unexpected:
        parts = [
            f"{len(names)} {word} (first {names[0]})"
            for word, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise _foreign(path, key, f"of its tensors, {' and '.join(parts)}")


def _foreign(path: Path, key: str, what: str) -> WeightsError:
    return WeightsError(
        f"{key}: expected weights of this network, but {path} belongs to another one: {what}; "
        f"give the right file, or use --weights {key}=none."
    )


def _read(path: Path, key: str) -> Any:
    """Return whatever the file holds."""
    import torch
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(
            f"{key}: the weights file {path} cannot be read ({error.strerror or error}); check "
            f"the path, or use --weights {key}=none."
        ) from error
    try:
        if head[8:] == b"{" and not head.startswith((b"PK", b"\x80")):
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if _needs_code(error, head):
            raise WeightsError(
                f"{key}: {path} is refused for safety, because loading it would run code stored "
                "in it; expected tensors alone: save the network's state_dict(), best as "
                "safetensors."
            ) from error
        if isinstance(error, MemoryError):
            raise
        raise WeightsError(
            f"{key}: {path} is not a weights file, or is damaged ({_reason(error)}); expected a "
            "state dict written by torch.save or safetensors."
        ) from error


def _needs_code(error: Exception, head: bytes) -> bool:
    pickled = isinstance(error, pickle.UnpicklingError) and head.startswith((b"PK", b"\x80"))
    return pickled or "TorchScript" in str(error)


def _plain(content: Any, network: nn.Module, path: Path, key: str) -> OrderedDict[str, Tensor]:
    """Unwrap a state dict and bring its names to the network's spelling."""
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    if not content or not tensors:
        raise WeightsError(
            f"{key}: expected a state dict (names and tensors) in {path}, found "
            f"{type(content).__name__} of something else; save the network's state_dict()."
        )
    versions: Mapping[str, Any] = getattr(content, "_metadata", None) or {
        "": {"version": network._version}
    }
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    state = OrderedDict(
        (_OLD_DENSENET.sub(r"\1\2", name.removeprefix(prefix)), value)
        for name, value in content.items()
    )
    # Networks convert old files by the versions that torch.save keeps in this attribute.
    named = {name.removeprefix(prefix): value for name, value in versions.items()}
    state._metadata = OrderedDict(named)  # type: ignore[attr-defined]
    return state


def _spare_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Return prefixes of tensors that the backbone does not need."""
    from automl_tl_torch.classifier import last_child

    # Built without auxiliary classifiers, a network still meets them in its published file.
    return (f"{last_child(network)}.", *_AUXILIARY)


def _reason(error: BaseException) -> str:
    reason = str(error).strip() or type(error).__name__
    return reason.splitlines()[0][:200].rstrip(".")
