"""The output of any layer, written to a new array on disk."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn

from automl_tl.errors import TrialError, UsageError
from automl_tl.files import written_aside
from automl_tl.layers import find_layer
from automl_tl.pages import Pages
from automl_tl_torch import compute

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.protocols import Progress
    from automl_tl.types import Source
    from automl_tl_torch.network import Network


def extract(
    network: Network,
    source: Source,
    layer: str,
    pooling: Literal["avg", "max"] | None,
    out: Path,
    progress: Progress,
) -> None:
    """Write what a layer returns for every row of a source; see ``Backend.extract``.

    Raises:
        UsageError: When there is no such layer, or its output is not one tensor an image.
        TrialError: When the file cannot be written, or not even one image fits on the device.
    """
    info = network.info
    index = find_layer(info, layer, network.backbone.key)
    tap = nn.Identity() if source.cut == index + 1 else network.tap(source.cut, index)
    above = next(cut.index for cut in info.cuts if cut.index > index)
    size = compute.batch_size(network, source.cut, above)
    rows = len(np.load(source.path, mmap_mode="r")) if source.rows is None else len(source.rows)
    target: tuple[NDArray[np.float32], Pages] | None = None

    def keep(aside: Path, part: slice, result: Tensor) -> None:
        nonlocal target
        if target is None:
            shape = (rows, *result.shape[1:])
            mapped = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=shape)
            target = mapped, Pages(mapped)
        array, pages = target
        array[part] = result.cpu().numpy()
        pages.touch(array[part])

    try:
        with written_aside(out) as aside:
            output = _Output(tap, layer, pooling)
            compute.forward(network, output, source, size, partial(keep, aside), progress)
    except OSError as error:
        raise TrialError(f"{out} cannot be written ({error.strerror or error}).") from error


class _Output(nn.Module):
    """A layer's output, refused unless it is one tensor an image, and pooled."""

    def __init__(self, tap: nn.Module, layer: str, pooling: Literal["avg", "max"] | None) -> None:
        super().__init__()
        self._tap = tap
        self._layer = layer
        self._pooling = pooling

    def forward(self, x: Tensor) -> Tensor:
        value: Any = self._tap(x)
        if not isinstance(value, Tensor) or not value.ndim or len(value) != len(x):
            what = f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"--layer {self._layer}: expected a layer that returns one tensor an image, but "
                f"for {len(x)} images it returns {what}; choose the layer before or after it."
            )
        return value if self._pooling is None or value.ndim == 2 else self._pool(value)

    def _pool(self, value: Tensor) -> Tensor:
        """Pool over the two equal sides of a map: channels first as most, or last as Swin's."""
        shape = tuple(value.shape)
        if len(shape) == 4 and shape[2] == shape[3]:
            return compute.pool(value, self._pooling)
        if len(shape) == 4 and shape[1] == shape[2]:
            return compute.pool(value.permute(0, 3, 1, 2), self._pooling)
        raise UsageError(
            f"--pooling {self._pooling}: expected a layer whose output is a spatial map, but "
            f"{self._layer} returns {shape[1:]} for an image; leave out --pooling."
        )
