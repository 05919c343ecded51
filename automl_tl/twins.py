"""Finished trials by what they were: another one of the same kind would give the same numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Twins:
    """Finds a finished trial by its spec, in the same time however many there are."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._first: dict[str, int] = {}

    def learn(self, number: int, facts: Mapping[str, Any]) -> None:
        """Take in a complete trial; one that was stopped early or is a twin itself has no twins."""
        if number not in self._seen:
            self._seen.add(number)
            if not facts.get("stopped", True) and "twin_of" not in facts:
                self._first.setdefault(_key(facts["spec"]), number)

    def of(self, spec: Mapping[str, Any]) -> int | None:
        """Return the number of the first trial of exactly this spec."""
        return self._first.get(_key(spec))


def _key(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)
