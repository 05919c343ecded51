"""Rows of a CSV file that every reader gets back as they were."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def row_writer(file: IO[str]) -> Callable[[Sequence[object]], object]:
    """Return what writes a row to a file, which must leave line breaks as they are.

    Python's own writer leaves a carriage return unquoted before Python 3.13, and its reader takes
    it for the end of the row.
    """
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Sequence[object]) -> object:
        odd = any("\r" in cell for cell in cells if isinstance(cell, str))
        return (quoted if odd else plain).writerow(cells)

    return write
