"""Keeps TensorFlow out of the process that runs the other tests; see ``test_in_own_process``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

collect_ignore = [] if os.environ.get("AUTOML_TL_KERAS_TESTS") == "1" else ["keras"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest test by far, first: several processes at work should not wait for it in the end.
    items.sort(key=lambda item: item.path.name != "test_in_own_process.py")
