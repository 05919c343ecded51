from __future__ import annotations

import pytest

from automl_tl.units import are, plural


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "epoch", "2 epochs"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "exact copy", "2 exact copies"),
    ],
)
def test_counts_read_well(count: int, noun: str, expected: str) -> None:
    assert plural(count, noun) == expected
    assert are(count) == ("is" if count == 1 else "are")
