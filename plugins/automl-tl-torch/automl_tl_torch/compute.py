"""Running a frozen part of a network over an array on disk."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from automl_tl.augment import ViewParameters, draw
from automl_tl.errors import PluginError, TrialError
from automl_tl.pages import Pages
from automl_tl.training.rows import Rows
from automl_tl_torch import augment
from automl_tl_torch.device import exact_float32, free_memory, memory_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from automl_tl.protocols import Progress
    from automl_tl.types import Source
    from automl_tl_torch.network import Network

# Values alive at once in a block, beside the largest one at a cut: measured on the networks whose
# blocks widen most (an inverted bottleneck holds six times its input, twice).
_ALIVE = 12
# On a CPU larger batches took as long per image (8 to 64 measured) and more memory.
_LARGEST_BATCH = {"cpu": 16, "mps": 128, "cuda": 512}


def run(
    network: Network,
    source: Source,
    cut: int,
    pooling: Literal["avg", "max"] | None,
    out: Path,
    progress: Progress,
) -> None:
    """Fill ``out`` with the tensors at ``cut``; see ``automl_tl.protocols.Backend.run``.

    Computes in full float32 on every device. When a batch does not fit on the device, it is
    halved.

    Raises:
        PluginError: When the arguments do not go together.
        TrialError: When not even one image fits on the device.
    """
    if source.pooling or cut < source.cut or (pooling and cut != len(network.info.layers)):
        raise PluginError(
            f"{network.backbone.key}: expected to compute from a stored tensor upwards, and to "
            f"pool at the last cut only, got cut {source.cut} to {cut} with pooling {pooling}."
        )
    target = np.load(out, mmap_mode="r+")
    pages = Pages(target)

    def keep(part: slice, result: Tensor) -> None:
        target[part] = pool(result, pooling).cpu().numpy()
        pages.touch(target[part])

    network.eval()
    segment = network.frozen(source.cut, cut)
    forward(network, segment, source, batch_size(network, source.cut, cut), keep, progress)
    target.flush()


def forward(
    network: Network,
    segment: nn.Module,
    source: Source,
    size: int,
    keep: Callable[[slice, Tensor], None],
    progress: Progress,
) -> None:
    """Run a part of a network over a source, batch by batch, in full float32.

    Args:
        network: What the part belongs to.
        segment: The part; its argument is what the source holds.
        source: What to read.
        size: Images a batch; halved when they do not fit on the device.
        keep: Called with the positions of a batch and its float32 result.
        progress: Told how many images are done.

    Raises:
        TrialError: When not even one image fits on the device.
    """
    network.eval()
    stored = Rows(source)
    drawn = draw(source.view, len(stored)) if source.view else None
    done = 0
    progress.step(f"prefix {network.backbone.key}", done, len(stored))
    with torch.inference_mode(), exact_float32(network.device):
        while done < len(stored):
            part = slice(done, min(done + size, len(stored)))
            try:
                batch = stored.chunk(part.start, part.stop)
                result = _forward(network, segment, batch, _slice(drawn, part))
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise TrialError(
                        f"{network.backbone.key}: not even one image of "
                        f"{network.spec.image_size} pixels a side fits on {network.device}; "
                        "choose a smaller image size or another device."
                    ) from error
                size //= 2
                torch.cuda.empty_cache()
                continue
            keep(part, result)
            done = part.stop
            progress.step(f"prefix {network.backbone.key}", done, len(stored))


def pool(features: Tensor, pooling: Literal["avg", "max"] | None) -> Tensor:
    """Pool a map ``(n, c, h, w)`` to ``(n, c)``; a vector stays as it is."""
    if pooling is None or features.ndim != 4:
        return features
    return features.mean(dim=(2, 3)) if pooling == "avg" else features.amax(dim=(2, 3))


def batch_size(network: Network, start: int, stop: int) -> int:
    """Return how many images to compute at once between two cuts."""
    shapes = [cut.shape for cut in network.info.cuts if start <= cut.index <= stop]
    image_bytes = 4 * _ALIVE * max(math.prod(shape) for shape in shapes)
    largest = _LARGEST_BATCH.get(network.device.type, 16)
    return max(1, min(largest, free_memory(network.device) // image_bytes))


def _forward(
    network: Network,
    segment: nn.Module,
    batch: NDArray[np.generic],
    drawn: ViewParameters | None,
) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(network.device)
    if drawn is not None:
        tensor = augment.apply(tensor, drawn)
    elif tensor.dtype != torch.uint8:
        tensor = tensor.to(torch.float32)
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=memory_format(network.device))
    result: Tensor = segment(tensor)
    return result.to(torch.float32)


def _slice(drawn: ViewParameters | None, part: slice) -> ViewParameters | None:
    if drawn is None:
        return None
    return dataclasses.replace(drawn, affine=drawn.affine[part], colour=drawn.colour[part])
