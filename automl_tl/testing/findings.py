"""What a check finds: what it expected of whom, and what came."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Subject(Protocol):
    """What is checked."""

    @property
    def subject(self) -> str:
        """What findings call it."""


S = TypeVar("S", bound=Subject)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        subject: What it was checked of: a plugin's name, ``torch/my_net``, ``backend torch``.
        check: Name of the check.
        expected: What is right.
        received: What came.
        passed: Whether that is right.
    """

    subject: str
    check: str
    expected: str
    received: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.subject}, {self.check}: expected {self.expected}, got {self.received}."


def find(check: Callable[[S], Iterable[Finding]], thing: S) -> list[Finding]:
    """Run a check on a thing; what it raises is a finding too.

    Args:
        check: A function ``check_NAME``, which yields findings. The first line of its docstring
            says what is right.
        thing: What to check.
    """
    found: list[Finding] = []
    try:
        found.extend(check(thing))
    except Exception as error:  # a plugin may raise anything, at any place
        found.append(Finding(thing.subject, name_of(check), rule(check), reason(error), False))
    return found


def name_of(check: Callable[..., object]) -> str:
    """Return the name of a check as people read it: ``check_cut_points`` is ``cut points``."""
    return check.__name__.removeprefix("check_").replace("_", " ")


def rule(check: Callable[..., object]) -> str:
    """Return what a check is about: the first line of its docstring, as part of a sentence."""
    line = (inspect.getdoc(check) or name_of(check)).splitlines()[0].rstrip(".")
    return line[:1].lower() + line[1:]


def reason(error: BaseException) -> str:
    """Return an error as part of a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def some(names: Iterable[str], most: int = 4) -> str:
    """Return names, or the first few of many; ``none`` for none."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more if listed else "none"
