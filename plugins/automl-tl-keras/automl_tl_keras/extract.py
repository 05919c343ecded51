"""The output of any layer, written to a new array on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from automl_tl.errors import TrialError, UsageError
from automl_tl.files import written_aside
from automl_tl.layers import find_layer
from automl_tl_keras import compute

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from automl_tl.protocols import Progress
    from automl_tl.types import Source
    from automl_tl_keras.network import Network


def extract(
    network: Network,
    source: Source,
    layer: str,
    pooling: Literal["avg", "max"] | None,
    out: Path,
    progress: Progress,
    device: str = "cpu",
) -> None:
    """Write what a layer returns for every row of a source; see ``Backend.extract``.

    Raises:
        UsageError: When there is no such layer, or its output is not one tensor an image.
        PluginError: When the layer has several outputs.
        TrialError: When the file cannot be written, or not even one image fits on the device.
    """
    info = network.info
    index = find_layer(info, layer, network.backbone.key)
    at_cut = any(cut.index == index + 1 for cut in info.cuts)
    part = network.segment(source.cut, index + 1) if at_cut else network.tap(source.cut, layer)
    shape = _shape(part, layer, pooling)
    above = next(cut.index for cut in info.cuts if cut.index > index)
    size = compute.batch_size(network, source.cut, above, device)
    rows = len(np.load(source.path, mmap_mode="r")) if source.rows is None else len(source.rows)
    try:
        with written_aside(out) as aside:
            target = np.lib.format.open_memmap(aside, "w+", np.float32, (rows, *shape))
            compute.fill(network, part, source, pooling, target, size, progress, device)
            target.flush()
    except OSError as error:
        raise TrialError(f"{out} cannot be written ({error.strerror or error}).") from error


def _shape(part: keras.Model, layer: str, pooling: Literal["avg", "max"] | None) -> tuple[int, ...]:
    """Return the shape of one image's output, pooled where that is asked for."""
    batch, *sides = part.output_shape
    if batch is not None or None in sides:
        raise UsageError(
            f"--layer {layer}: expected a layer that returns one tensor an image, but it returns "
            f"{part.output_shape}; choose the layer before or after it."
        )
    if pooling is None or len(sides) == 1:
        return tuple(sides)
    if len(sides) != 3:
        raise UsageError(
            f"--pooling {pooling}: expected a layer whose output is a spatial map, but {layer} "
            f"returns {tuple(sides)} for an image; leave out --pooling."
        )
    return (sides[-1],)
