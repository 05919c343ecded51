"""Image files as squares of pixels, for whoever decodes a few in another process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from automl_tl.data.decode import Resize


@dataclass(frozen=True, slots=True)
class Squares:
    """Decodes ``(path, size, resize)``, see ``data.decoding.Job``."""

    def start(self) -> Callable[[tuple[str, int, Resize]], NDArray[np.uint8]]:
        """Return what gives uint8 RGB ``(size, size, 3)``, or raises why there is none."""
        from automl_tl.data.decode import decode  # whoever sends this decodes nothing

        def square(asked: tuple[str, int, Resize]) -> NDArray[np.uint8]:
            path, size, resize = asked
            return decode(_read(path), size, resize)

        return square


def _read(path: str) -> bytes:
    try:
        if os.path.isfile(path):
            return Path(path).read_bytes()
        if os.path.isdir(path):
            os.scandir(path).close()  # says where that is why no image was found in it
            raise ImageError("a folder without any image")
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    except MemoryError:
        raise ImageError("too large for the memory") from None
    raise ImageError("no regular file" if os.path.exists(path) else "no such file")
