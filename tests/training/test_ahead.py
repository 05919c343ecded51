"""Reading ahead keeps the order, hands errors on, and leaves no thread behind."""

from __future__ import annotations

import threading
import time

import pytest

from automl_tl.training.ahead import read_ahead


def test_items_come_in_order_and_are_made_before_they_are_asked_for():
    made = []

    def items():
        for number in range(6):
            made.append(number)
            yield number

    found = []
    for item in read_ahead(items()):
        time.sleep(0.02)
        found.append(item)
        if item == 1:
            assert len(made) >= 3
    assert found == list(range(6))


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    ahead = read_ahead(iter(range(10**9)))
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before
