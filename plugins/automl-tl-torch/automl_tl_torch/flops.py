"""PyTorch's counter of operations, without Triton, of whose kernels a layer has none.

Importing Triton takes 70 MB for as long as the process lives.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRITON = "triton"
_COUNTER = "torch.utils.flop_counter"


@contextmanager
def _no_triton() -> Iterator[None]:
    """Let an import of Triton fail, where nobody imported it yet."""
    log = logging.getLogger(_COUNTER)
    if _TRITON in sys.modules:
        yield
        return
    sys.modules[_TRITON] = None  # type: ignore[assignment]
    log.disabled = True  # it would warn that Triton is missing
    try:
        yield
    finally:
        log.disabled = False
        del sys.modules[_TRITON]


with _no_triton():
    FlopCounterMode = import_module(_COUNTER).FlopCounterMode
