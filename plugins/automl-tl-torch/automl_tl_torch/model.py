"""Trained models as files: written as safetensors, opened again without unpickling anything."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from automl_tl import modelfile
from automl_tl.errors import AutoMLError, ExportError
from automl_tl.modelfile import ModelFacts
from automl_tl.training.head import parameters
from automl_tl.types import NetworkSpec
from automl_tl_torch import archive
from automl_tl_torch.device import exact_float32
from automl_tl_torch.graph import place
from automl_tl_torch.head import HeadModule, head_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl.specs import Backbone
    from automl_tl.types import Head
    from automl_tl_torch.network import Network


class Classifier(nn.Module):
    """A whole model: uint8 RGB pixels ``(N, S, S, 3)`` to float32 logits ``(N, classes)``.

    Its state dict holds ``backbone.*``, named as in ``network.module``, and ``head.*``.

    Args:
        network: The backbone, whose parameters are shared.
        head: The head, likewise.
    """

    def __init__(self, network: Network, head: HeadModule) -> None:
        super().__init__()
        whole = cast("nn.Sequential", network.segment(0, len(network.info.layers)))
        self.normalize, self.backbone = whole
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise, run the backbone, classify."""
        logits: Tensor = self.head(self.backbone(self.normalize(pixels)))
        return logits


class TorchModel:
    """A trained model in memory; implements ``automl_tl.protocols.Model``.

    Args:
        program: Maps uint8 ``(N, S, S, 3)`` to float32 logits ``(N, classes)``, in evaluation
            mode, on ``device``; a ``Classifier`` where the model is to be exported.
        image_size: Side of the square input in pixels.
        device: Where it runs.
        written: SHA-256 of the archives that this process exported; ``export`` adds to it.
    """

    def __init__(
        self, program: nn.Module, image_size: int, device: torch.device, written: set[str]
    ) -> None:
        self.program = program
        self.image_size = image_size
        self.device = device
        self._written = written

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)`` in float32; returns ``(N, classes)``.

        Raises:
            ExportError: For pixels of another shape or type.
        """
        side = self.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ExportError(
                f"expected uint8 pixels of shape (N, {side}, {side}, 3), got {pixels.dtype} "
                f"{pixels.shape}; resize the images first."
            )
        starts = range(0, max(1, len(pixels)), batch_size)
        with torch.inference_mode(), exact_float32(self.device):
            parts = [self._run(pixels[start : start + batch_size]) for start in starts]
        return np.concatenate(parts)

    def calibrate(self, temperature: float) -> None:
        """Divide all logits by a temperature, in the last layer's weights; see ``Model``.

        Raises:
            ExportError: For a model that is exported already.
        """
        for tensor in self._trained().head.layers[-1].state_dict().values():
            tensor.div_(temperature)

    def export(self, format: str, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model as ``onnx``, ``torch`` or ``safetensors``, to exactly ``path``.

        Raises:
            ExportError: For another format, or when the model cannot be expressed in it.
        """
        trained = self._trained()
        if trained.training:
            raise ExportError("expected a model in evaluation mode, got one in training mode.")
        from automl_tl_torch import export

        classifier = copy.deepcopy(trained).to("cpu")
        place(classifier, torch.device("cpu"))
        classifier.to(memory_format=torch.contiguous_format)
        if format == "safetensors":
            save_model(path, classifier.state_dict(), metadata)
        elif format == "torch":
            self._written.add(export.write_archive(classifier, self.image_size, path, metadata))
        elif format == "onnx":
            export.write_onnx(classifier, self.image_size, path, metadata)
        else:
            raise ExportError(f"format: expected onnx, torch or safetensors, got {format!r}.")

    def _trained(self) -> Classifier:
        if not isinstance(self.program, Classifier):
            raise ExportError(
                "expected a trained model, got one that is exported already; export it again from "
                "its study with `automl-tl export`."
            )
        return self.program

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        logits: NDArray[np.float32] = self.program(x).float().cpu().numpy()
        return logits


def save_model(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, aside and renamed.

    Args:
        path: Replaced when it exists.
        tensors: Named ``backbone.*`` and ``head.*``, on any device. One of several names is
            written once for each, as its values alone are read.
        metadata: Stored as it is.

    Raises:
        ExportError: When the file cannot be written.
    """
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        memory = values.untyped_storage().data_ptr()
        plain[name] = values.clone() if memory in taken else values
        taken.add(memory)
    with modelfile.written(path) as aside:
        save_file(plain, aside, dict(metadata))


def assemble(
    network: Network,
    head: Head,
    weights: Sequence[NDArray[np.float32]],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write a network with a trained head; see ``automl_tl.protocols.Backend.assemble``."""
    module = HeadModule(head, network.info.cuts[-1].shape, 0, weights)
    tensors = {f"head.{name}": value for name, value in module.state_dict().items()}
    for name, value in network.module.state_dict().items():
        tensors[f"backbone.{name}"] = value
    save_model(path, tensors, metadata)


def load_model(
    path: Path,
    device: torch.device,
    backbones: Callable[[str], Backbone],
    written: set[str] | None = None,
) -> TorchModel:
    """Open a model file, whatever its suffix.

    The network is rebuilt from the facts in the file and filled with the file's tensors. A
    ``torch.export`` archive runs as the program it is only when this process wrote it, because
    ``torch.export.load`` unpickles; from any other only the tensors are read.

    Args:
        path: safetensors, or a ``.pt2`` archive.
        device: Where to run it.
        backbones: Returns the backbone of a key; raises an ``AutoMLError`` for an unknown one.
        written: SHA-256 of the archives that this process exported.

    Raises:
        ExportError: When the file is not a model of automl-tl, or damaged.
    """
    written = set() if written is None else written
    kind = _kind(path)
    tensors, metadata = archive.read(path) if kind == "archive" else _read_safetensors(path)
    facts = ModelFacts.parse(metadata, path.name)
    if kind == "archive" and written:
        program = archive.open_trusted(path, written)
        if program is not None:
            return TorchModel(program, facts.image_size, torch.device("cpu"), written)
    room = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("head."))
    classifier = _rebuild(facts, backbones, device, path.name, room)
    _fill(classifier, tensors, path.name)
    return TorchModel(classifier, facts.image_size, device, written)


def _kind(path: Path) -> str:
    """Tell a zip from safetensors, which open with a length and a JSON object."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ExportError(f"{path}: expected a model file, but {error.strerror}.") from error
    if start.startswith(b"PK\x03\x04"):
        return "archive"
    if start[8:] == b"{":
        return "safetensors"
    raise ExportError(
        f"{path}: expected a model that automl-tl wrote as safetensors or as a PyTorch archive, "
        "got another kind of file."
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"{path}: the file is damaged ({error}); export the model again."
        ) from error


def _rebuild(
    facts: ModelFacts,
    backbones: Callable[[str], Backbone],
    device: torch.device,
    name: str,
    room: int,
) -> Classifier:
    """Build the model that a file tells of, whose head has at most ``room`` parameters."""
    from automl_tl_torch import network

    spec = NetworkSpec(facts.backbone, facts.image_size, None, "random:0")
    try:
        built = network.build(spec, backbones(facts.backbone), device)
        shape = built.info.cuts[-1].shape
        wanted = parameters(facts.head, head_inputs(facts.head, shape))
        if wanted > room:
            raise _foreign(name, f"its head has {wanted:,} parameters, not {room:,}")
        head = HeadModule(facts.head, shape, seed=0).to(device)
    except ExportError:
        raise
    except (AutoMLError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(
            f"{name}: its network {facts.backbone} cannot be rebuilt ({error})"
        ) from error
    return Classifier(built, head).eval().requires_grad_(False)


def _fill(classifier: Classifier, tensors: Mapping[str, Tensor], name: str) -> None:
    try:
        classifier.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise _foreign(name, str(error).splitlines()[-1].strip()) from error


def _foreign(name: str, reason: str) -> ExportError:
    return ExportError(
        f"{name}: its tensors are not those of the network that it names ({reason}); export the "
        "model again."
    )
