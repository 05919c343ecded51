"""How large a network's features are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automl_tl.training.rows import Rows

if TYPE_CHECKING:
    from automl_tl.types import Source

_CHUNK = 4 << 20


def feature_scale(source: Source) -> float:
    """Return what brings the root mean square of stored features to 1, to three digits.

    Networks differ: pooled features of torchvision's MobileNetV2 have a root mean square of 0.75,
    those of SqueezeNet 1.0 of 16. Without a scale the same learning rate would mean something else
    on each. One number for all features keeps what they mean to one another.

    Args:
        source: Features, at the last cut.
    """
    rows = Rows(source)
    step = max(1, _CHUNK * len(rows) // max(1, rows.nbytes))
    total, count = 0.0, 0
    for start in range(0, len(rows), step):
        chunk = rows.chunk(start, start + step)
        total += float(np.square(chunk, dtype=np.float64).sum())
        count += chunk.size
    # Three digits do not tell how the features were computed: in which batches, on what device.
    return float(f"{(count / total) ** 0.5:.3g}") if total else 1.0
