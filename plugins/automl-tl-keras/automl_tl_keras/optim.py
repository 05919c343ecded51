"""The optimizers' names and constants, those of the PyTorch plugin.

With gradient g, rate r, weight w, and the slots m and v, which start at zero but for ``adagrad``:

```
sgd      m = 0.9 m + g;                                    w -= r m
adam     m = 0.9 m + 0.1 g;  v = 0.999 v + 0.001 g g;      w -= r m' / (sqrt(v') + 1e-7)
adamw    w -= r d w, then as adam
rmsprop  v = 0.9 v + 0.1 g g;                              w -= r g / (sqrt(v) + 1e-7)
adagrad  v = v + g g, from 0.1;                            w -= r g / (sqrt(v) + 1e-7)
```

``m' = m / (1 - 0.9 ** t)`` and ``v' = v / (1 - 0.999 ** t)`` at the t-th step. Weight decay d adds
``d w`` to g, but for ``adamw``, where it is decoupled; it spares whatever has fewer than two axes
longer than 1. Keras's own optimizers differ: ``SGD`` puts the rate into m, so that a falling rate
acts later, and ``RMSprop`` and ``Adagrad`` have epsilon inside the root, where 1e-7 is as much as
a small gradient's v.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automl_tl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOMENTUM = 0.9
BETA_1 = 0.9
BETA_2 = 0.999
RHO = 0.9
EPSILON = 1e-7

_STARTS = {
    "sgd": (0.0,),
    "adam": (0.0, 0.0),
    "adamw": (0.0, 0.0),
    "rmsprop": (0.0,),
    "adagrad": (0.1,),
}
OPTIMIZERS = tuple(_STARTS)


def starts(name: str) -> tuple[float, ...]:
    """Return what an optimizer's slots start from, one value a slot.

    Raises:
        UsageError: For an unknown name.
    """
    if name not in _STARTS:
        raise UsageError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}.")
    return _STARTS[name]


def constants(name: str, rates: NDArray[np.float64], done: int) -> NDArray[np.float32]:
    """Return what each step's update is made with, computed in float64.

    Args:
        name: The optimizer.
        rates: float64 ``(steps,)``, the learning rates.
        done: Steps that this optimizer took before.

    Returns:
        float32 ``(steps, 3)``: the learning rate; that times the bias correction of ``adam`` and
        ``adamw``; epsilon, which they correct likewise, so that m and v enter as they are.
    """
    step = done + 1 + np.arange(len(rates), dtype=np.float64)
    root, first = np.ones_like(step), np.ones_like(step)
    if name in ("adam", "adamw"):
        root, first = np.sqrt(1 - BETA_2**step), 1 - BETA_1**step
    return np.stack([rates, rates * root / first, EPSILON * root], axis=1).astype(np.float32)
