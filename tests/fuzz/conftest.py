from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

Fresh = Callable[[], Path]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Make a new folder with every call: one for each input, which fixtures cannot give."""
    root = tmp_path_factory.mktemp("fuzz")
    numbers = itertools.count()

    def make() -> Path:
        path = root / str(next(numbers))
        path.mkdir()
        return path

    return make
