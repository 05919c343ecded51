"""Bytes as a stranger might hand them over: valid files with a few edits, or anything at all.

``AUTOML_TL_FUZZ=20000 pytest tests/fuzz -m ''`` tries that many inputs a reader.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from automl_tl.errors import AutoMLError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

fuzzed = settings(
    max_examples=int(os.environ.get("AUTOML_TL_FUZZ", "20")),
    deadline=None,
    derandomize="AUTOML_TL_FUZZ" not in os.environ,  # who changes something else finds no new fault
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

_EDGES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"",
    b"[",
    b"{}",
    b"null",
    b"-1",
    b"1e999",
)


@st.composite
def mutated(draw: Any, originals: Sequence[bytes]) -> bytes:
    """Draw one of the files, most often with one to six edits."""
    data = bytearray(draw(st.sampled_from(list(originals))))
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=400))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        edit = draw(st.sampled_from(("flip", "replace", "edge", "cut", "repeat", "move")))
        if edit == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif edit == "replace":
            data[start:stop] = draw(st.binary(max_size=12))
        elif edit == "edge":
            data[start:stop] = draw(st.sampled_from(_EDGES))
        elif edit == "cut":
            del data[start:]
        elif edit == "repeat":
            data[start:start] = data[start:stop] * draw(st.integers(1, 50))
        elif edit == "move":
            target = draw(st.integers(0, len(data)))
            data[target:target] = data[start:stop]
    return bytes(data)


def read(reader: Callable[..., Any], *arguments: Any) -> Any:
    """Call a reader; it may refuse, in one sentence, and raise nothing else.

    Returns:
        What it returned, or None when it refused.
    """
    try:
        return reader(*arguments)
    except AutoMLError as error:
        said = str(error)
        assert said.strip() and "\n" not in said, f"not one sentence: {said!r}"
        return None
