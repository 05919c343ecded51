"""Batches in parts that fit the device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from automl_tl.errors import TrialError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


class MicroBatches:
    """Divides batches; halves the parts when the device's memory runs out.

    Args:
        batch_size: Of a whole batch.
        out_of_memory: Says whether this is what an exception means.
        release: Called before each new try, to give unused memory back.
    """

    def __init__(
        self,
        batch_size: int,
        out_of_memory: Callable[[Exception], bool],
        release: Callable[[], None] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.size = batch_size
        self._out_of_memory = out_of_memory
        self._release = release

    def fit(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns, calling it again with smaller parts as needed.

        Raises:
            TrialError: When one image does not fit.
        """
        while True:
            try:
                return compute()
            except Exception as error:
                if not self._out_of_memory(error):
                    raise
                reason = str(error).split(". ")[0].splitlines()[0]
            # Out of the handler, so that the traceback no longer holds the tensors.
            if self.size == 1:
                raise TrialError(
                    f"out of memory even with one image at a time ({reason}); choose a smaller "
                    "backbone or a smaller image size."
                )
            self.size = -(-self.size // 2)
            if self._release:
                self._release()

    def parts(self, positions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Split a batch."""
        for start in range(0, len(positions), self.size):
            yield positions[start : start + self.size]

    @property
    def note(self) -> str | None:
        """A sentence for a person when the parts are smaller than the batch."""
        if self.size == self.batch_size:
            return None
        parts = -(-self.batch_size // self.size)
        return f"out of memory: batch size {self.batch_size} became {parts} x {self.size}"
